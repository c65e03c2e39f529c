"""Faults for the tests of files: at the n-th call to the operating system, and in a file's bytes."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from unittest import mock

import numpy as np

CALLS = (
    "open",
    "read",
    "readv",
    "write",
    "fsync",
    "close",
    "replace",
    "unlink",
    "mkdir",
    "scandir",
)
CALLS += ("stat", "fstat")
WHEN = ("before", "half", "after")
FAULTS: dict[str, Callable[[], BaseException]] = {
    "no space": lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    "input/output error": lambda: OSError(errno.EIO, os.strerror(errno.EIO)),
    "no permission": lambda: PermissionError(errno.EACCES, os.strerror(errno.EACCES)),
    "memory": MemoryError,
    "Ctrl-C": KeyboardInterrupt,
}


def trials(count: int) -> int:
    """`count`, or what the environment's TORTURE asks for."""
    return int(os.environ.get("TORTURE", count))


@contextmanager
def fault_at(number: int, when: str, act: Callable[[], object]) -> Iterator[list[str]]:
    """Call `act` before, in the middle of (writes only) or after the call `number` (from 1).

    Yields a list that tells, in the end, which call it was; empty if there were not so many.
    """
    struck: list[str] = []
    count = 0

    def wrap(name: str, real: Callable) -> Callable:
        def call(*args: object, **options: object) -> object:
            nonlocal count
            count += 1
            if count != number:
                return real(*args, **options)
            struck.append(name)
            if when == "half" and name == "write":
                real(args[0], args[1][: len(args[1]) // 2])
            elif when == "after":
                real(*args, **options)
            return act()

        return call

    with mock.patch.multiple(os, **{name: wrap(name, getattr(os, name)) for name in CALLS}):
        yield struck


def run_in_child(work: Callable[[], object]) -> int:
    """Run `work` in a forked process; its exit code, negative for a signal, 1 for an exception."""
    pid = os.fork()
    if pid == 0:
        with suppress(BaseException):
            work()
            os._exit(0)
        os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill_at(number: int, when: str, work: Callable[[], object]) -> bool:
    """Run `work` in a process that SIGKILLs itself at a call; whether it came to that."""

    def doomed() -> None:
        with fault_at(number, when, lambda: os.kill(os.getpid(), signal.SIGKILL)):
            work()

    code = run_in_child(doomed)
    assert code in (0, -signal.SIGKILL), f"the child ended with {code}"
    return code != 0


def temporaries(folder: os.PathLike[str]) -> list[str]:
    """Names of temporary files in the folder."""
    return [name for name in os.listdir(folder) if name.endswith(".tmp")]


def damage(data: bytes, rng: np.random.Generator) -> bytes:
    """One to three random flips, cuts, insertions, blanks or copies; never `data` itself."""
    out = bytearray(data)
    while out == data:
        for _ in range(rng.integers(1, 4)):
            # half of the damage falls on the header, where it can do most
            reach = len(out) if rng.random() < 0.5 else min(len(out), 2000)
            at = int(rng.integers(reach + 1))
            length = int(2 ** rng.uniform(0, 8))
            kind = rng.integers(6)
            if kind == 0:
                out[at : at + 1] = bytes([int(rng.integers(256))])
            elif kind == 1 and at < len(out):
                out[at] ^= 1 << int(rng.integers(8))
            elif kind == 2:
                del out[at:]
            elif kind == 3:
                out[at:at] = rng.bytes(length)
            elif kind == 4:
                out[at : at + length] = bytes(len(out[at : at + length]))
            else:
                start = int(rng.integers(reach + 1))
                out[at : at + length] = out[start : start + length]
    return bytes(out)
