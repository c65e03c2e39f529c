"""The few Linux facilities that keep a job's processes under control: sessions, /proc, parent-death signals.

All processes of a job share one session (its number is the worker's process id), so that a job can
be found whole whatever its processes do, and apart from other jobs.
"""

from __future__ import annotations

import ctypes
import multiprocessing.process
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Let SIGTERM end the run in order, as Ctrl-C does, unless the caller handles it already."""
    mine = threading.current_thread() is threading.main_thread()
    if not mine or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
