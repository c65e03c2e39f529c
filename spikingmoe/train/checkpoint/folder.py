"""A run's folder: which checkpoints it holds, and which of them are kept."""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hardware.errors import FileError
from spikingmoe.train.checkpoint.archive import read_checkpoint

KEPT = 2  # resume falls back on the one before if the newest is damaged
PATTERN = re.compile(r"epoch-(\d+)(?:-step-(\d+))?\.safetensors")


def checkpoint_name(epochs: int, steps: int = 0) -> str:
    """Name of the checkpoint after `epochs` whole epochs and `steps` steps of the next."""
    within = f"-step-{steps:06d}" if steps else ""
    return f"epoch-{epochs:04d}{within}.safetensors"


def checkpoints(run: Path) -> list[Path]:
    """A run's checkpoints, newest first."""
    found = [
        (int(m[1]), int(m[2] or 0), p)
        for p in (run / "checkpoints").glob("*")
        if (m := PATTERN.fullmatch(p.name))
    ]
    return [path for _, _, path in sorted(found, reverse=True)]


def remove_old(run: Path, written: str) -> None:
    """Remove all checkpoints but `written` and the one before it.

    Newer ones than that which was just written are damaged: training went on from one before them.
    """
    found = checkpoints(run)
    place = [path.name for path in found].index(written)
    for other in (*found[:place], *found[place + KEPT :]):
        other.unlink(missing_ok=True)


def make_run_folder(run: Path) -> None:
    """Create the folder for checkpoints before any work is done; FileError if that is impossible."""
    try:
        (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{run}: cannot hold a run ({error.strerror}); use another --out") from None


@contextmanager
def alone_in_run(run: Path) -> Iterator[None]:
    """Keep other trainings out of a run's folder; FileError if one is at work there.

    The lock ends with this process, however it ends: processes that it forks let go of it at once.
    """
    fd = os.open(run, os.O_RDONLY | os.O_CLOEXEC)
    _held.add(fd)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        _let_go(fd)
        raise FileError(
            f"{run}: another training is at work there; wait, or use another --out"
        ) from None
    except OSError:
        pass  # a file system that knows no locks
    try:
        yield
    finally:
        _let_go(fd)


_held: set[int] = set()  # descriptors of locked folders


def _let_go(fd: int) -> None:
    if fd in _held:
        _held.remove(fd)
        os.close(fd)


def _let_all_go() -> None:
    for fd in list(_held):
        _let_go(fd)


os.register_at_fork(after_in_child=_let_all_go)


def newest_valid(run: Path) -> Path | None:
    """The newest checkpoint that verifies; None if there is none at all.

    Raises:
        FileError: if there are checkpoints and every one is damaged.
    """
    first: FileError | None = None
    for path in checkpoints(run):
        try:
            read_checkpoint(path)
        except FileError as error:
            first = first or error
        else:
            return path
    if first is not None:
        raise first
    return None
