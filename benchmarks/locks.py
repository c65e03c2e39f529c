"""Work that one process at a time may do: locks that end with the process that holds them."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hardware.errors import FileError


@contextmanager
def claim(folder: Path, name: str, *, wait: bool = False) -> Iterator[bool]:
    """Whether this process may do the work called `name`; the claim ends with the block or the process.

    The kernel holds the lock (`flock`), so a process that dies, however it dies, keeps none. The
    empty lock file `folder/locks/name.lock` stays: to delete it would let two processes lock two files
    of one name.

    Args:
        wait: until it is free, and give True always.

    Raises:
        FileError: the lock file cannot be made.
    """
    path = folder / "locks" / f"{name}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise FileError(f"{path}: cannot be made ({error.strerror}); use another --out") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True
