"""What a Lava run needs of the machine: Linux, open files, shared memory."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path

from hardware.errors import BackendError
from hardware.jobs.processes import SHARED_MEMORY

AMPLE_DESCRIPTORS = 65_536  # the estimate of what is needed need not be sharp
SPARE_DESCRIPTORS = 64
PER_PROCESS, PER_CONNECTION = 10, 3  # descriptors of the worker, measured on Lava 0.10, rounded up
CHANNEL_SLOTS = 2  # Lava's default of 64 takes 32 times the shared memory
PAGE = 4096


def require_linux() -> None:
    """Raise BackendError where there is no /proc and no parent-death signal."""
    if sys.platform != "linux" or not Path("/proc/self/stat").exists():
        raise BackendError(
            f"the Lava backend supervises its processes through Linux's /proc; this is {sys.platform}: "
            f"use backend 'reference', or Linux (also in a container)"
        )


def descriptors_needed(processes: int, connections: int) -> int:
    """Files that the worker of a Lava run has open at once."""
    return PER_PROCESS * (processes + 1) + PER_CONNECTION * connections + SPARE_DESCRIPTORS


def shared_memory_needed(processes: int, connections: int, message_bytes: int) -> int:
    """Bytes in /dev/shm of a Lava run whose connections carry `message_bytes` a step in all."""
    return CHANNEL_SLOTS * (message_bytes + (connections + 2 * processes) * PAGE)


def raise_descriptor_limit(needed: int, processes: int) -> None:
    """Let this process open `needed` files, and more where the hard limit allows it.

    Raises:
        BackendError: when the hard limit is too low, with the command that raises it.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise BackendError(
            f"{processes} Lava processes need about {needed} open files; the hard limit is {hard}: "
            f"run `ulimit -n {needed}` with the rights to raise it, or simulate a smaller model"
        )
    wanted = max(needed, AMPLE_DESCRIPTORS)
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def require_shared_memory(needed: int) -> None:
    """Raise BackendError when /dev/shm has less than `needed` bytes free (actors would get SIGBUS)."""
    facts = os.statvfs(SHARED_MEMORY)
    free = facts.f_bavail * facts.f_frsize
    if free < needed:
        raise BackendError(
            f"the Lava run needs about {needed / 1e6:.0f} MB of shared memory; {SHARED_MEMORY} has "
            f"{free / 1e6:.0f} MB free: enlarge it (`mount -o remount,size=...`, or "
            f"`docker run --shm-size`)"
        )
