"""What the operating system grants, against what a digits model on Lava's stock processes needs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from hardware.jobs.processes import SHARED_MEMORY
from hardware.lava.system import descriptors_needed, shared_memory_needed
from spikingmoe.doctor.check import Check

TOPIC = "limits of a Lava run"
#: The preset digits on stock Lava 0.10, either arithmetic (tests/unit/test_doctor.py builds it).
PROCESSES, CONNECTIONS, MESSAGE_BYTES = 143, 267, 1_547_984
NO_RUN = "a digits model does not run on Lava's stock processes: no demo"


def limit_checks(shared_memory: Path = SHARED_MEMORY) -> Iterator[Check]:
    """Platform, descriptors and shared memory as they are now."""
    yield platform_check(sys.platform, Path("/proc/self/stat").exists())
    if sys.platform == "linux":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        yield descriptor_check(None if hard == resource.RLIM_INFINITY else hard)
        facts = os.statvfs(shared_memory)
        yield shared_memory_check(facts.f_bavail * facts.f_frsize, shared_memory)


def platform_check(platform: str, proc: bool) -> Check:
    """Lava runs are supervised through /proc."""
    good = platform == "linux" and proc
    return Check(
        topic=TOPIC,
        name="operating system",
        state="ok" if good else "missing",
        found=platform if good or platform != "linux" else "linux without /proc",
        cost="" if good else "no run on Lava; the reference and training work",
        fix="" if good else "use Linux, or a Linux container with /proc",
        needed=True,
    )


def descriptor_check(hard: int | None) -> Check:
    """Open files: the soft limit is raised by the run itself, so the hard one counts (None: no limit)."""
    needed = descriptors_needed(PROCESSES, CONNECTIONS)
    enough = hard is None or hard >= needed
    return Check(
        topic=TOPIC,
        name="open files",
        state="ok" if enough else "missing",
        found=f"{'no limit' if hard is None else f'{hard:,}'}; the demo needs {needed:,}",
        cost="" if enough else NO_RUN,
        fix="" if enough else f"ulimit -Hn {needed} as root, or docker run --ulimit nofile=65536",
        needed=True,
    )


def shared_memory_check(free: int, folder: Path = SHARED_MEMORY) -> Check:
    """Bytes that are free in the folder of shared memory."""
    needed = shared_memory_needed(PROCESSES, CONNECTIONS, MESSAGE_BYTES)
    enough = free >= needed
    return Check(
        topic=TOPIC,
        name="shared memory",
        state="ok" if enough else "missing",
        found=f"{free / 1e6:,.0f} MB free in {folder}; the demo needs {needed / 1e6:,.0f} MB",
        cost="" if enough else NO_RUN,
        fix="" if enough else "mount -o remount,size=1G /dev/shm, or docker run --shm-size=1g",
        needed=True,
    )
