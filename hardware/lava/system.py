"""The few Linux facilities that keep a Lava run under control: sessions, /proc, parent-death signals.

All processes of a run share one session (its number is the worker's process id), so that a run can
be found whole whatever its processes do, and apart from other runs.
"""

from __future__ import annotations

import ctypes
import multiprocessing.process
import os
import resource
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

from hardware.errors import BackendError

PR_SET_PDEATHSIG = 1  # <sys/prctl.h>
SHARED_MEMORY = Path("/dev/shm")


@dataclass(frozen=True, kw_only=True)
class Member:
    """One process of a session. `state` as in /proc: R, S, D, T (stopped), Z (dead, not collected)."""

    pid: int
    state: str
    cpu_ticks: int
    exit_code: int

    @property
    def is_alive(self) -> bool:
        return self.state not in "ZX"

    @property
    def is_tracker(self) -> bool:
        """Whether it is Python's resource tracker, which unlinks the shared memory of the dead."""
        try:
            command = Path(f"/proc/{self.pid}/cmdline").read_bytes()
        except OSError:
            return False
        return b"multiprocessing.resource_tracker" in command

    @property
    def cause(self) -> str:
        """Why it died, where /proc tells."""
        number = self.exit_code & 0x7F
        if number:
            return f"killed by {signal.Signals(number).name}"
        return f"exit code {self.exit_code >> 8}"


def require_linux() -> None:
    """Raise BackendError where there is no /proc and no parent-death signal."""
    if sys.platform != "linux" or not Path("/proc/self/stat").exists():
        raise BackendError(
            f"the Lava backend supervises its processes through Linux's /proc; this is {sys.platform}: "
            f"use backend 'reference', or Linux (also in a container)"
        )


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when `parent` ends, however it ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it ended before the call
        os._exit(1)


def keep_dead_children() -> None:
    """Have this process leave its dead children to be seen by who watches it.

    multiprocessing collects those that died whenever it starts another: a process that was killed while
    the rest were being started would be gone without a trace, and the run would wait for it.
    """
    multiprocessing.process._cleanup = lambda: None  # type: ignore[attr-defined]


def session_members(session: int) -> list[Member]:
    """All processes of a session, dead ones that nobody collected included."""
    members = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                text = Path(entry.path, "stat").read_text()
            except OSError:  # it ended meanwhile
                continue
            fields = text[text.rindex(")") + 2 :].split()  # the name before it may hold anything
            if int(fields[3]) == session:
                members.append(
                    Member(
                        pid=int(entry.name),
                        state=fields[0],
                        cpu_ticks=int(fields[11]) + int(fields[12]),
                        exit_code=int(fields[49]),
                    )
                )
    return members


def cpu_seconds(session: int) -> float:
    """Processor time of all processes of a session so far; each is known to 1/100 s."""
    ticks = sum(member.cpu_ticks for member in session_members(session))
    return ticks / os.sysconf("SC_CLK_TCK")


def shared_memory_of(pid: int) -> set[str]:
    """Names of Python's shared-memory files that a process has mapped."""
    try:
        lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    except OSError:
        return set()
    paths = {line.split(maxsplit=5)[5] for line in lines if f"{SHARED_MEMORY}/psm_" in line}
    return {Path(path.removesuffix(" (deleted)")).name for path in paths}


AMPLE_DESCRIPTORS = 65_536  # the estimate of what is needed need not be sharp
SPARE_DESCRIPTORS = 64
PER_PROCESS, PER_CONNECTION = 10, 3  # descriptors of the worker, measured on Lava 0.10, rounded up
CHANNEL_SLOTS = 2  # Lava's default of 64 takes 32 times the shared memory
PAGE = 4096


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
