"""The one writer of every file of this project, and the reader of its archives.

A temporary file in the target's folder is written, synced, read back and compared, then renamed over
the target, and the folder is synced. Whoever dies on the way leaves the old file or the new one,
never a part; the next write to the folder removes what dead writers left.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress

import numpy as np

from hardware.archive import HEAD, check_head, decode_archive, encode_archive
from hardware.errors import FileError
from hardware.strays import remove_stray, temporary_path

__all__ = [
    "one_line",
    "read_archive",
    "remove_stray",
    "write_archive",
    "write_bytes",
    "write_json",
    "write_text",
]

PathLike = str | os.PathLike[str]

CHUNK = 1 << 22  # bytes per write
MAX_FILE = 1 << 32  # bytes; larger files are refused unread
_ADVICE = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EFBIG: "raise the limit of file sizes",
    errno.EACCES: "choose a place where you have the permission",
    errno.EPERM: "choose a place where you have the permission",
    errno.EROFS: "choose a place that is not read-only",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path",
    errno.EISDIR: "name a file in it",
    errno.EIO: "check the disk",
}


def write_bytes(
    path: PathLike,
    data: bytes | bytearray | memoryview,
    *,
    check: Callable[[str], object] | None = None,
) -> None:
    """Put `data` into the file, whole or not at all; missing folders are made.

    Args:
        path: a link is followed; the mode of an existing file is kept.
        check: called with the temporary file's path before it takes the target's place; raises to
            refuse it.

    Raises:
        FileError: the file is unchanged and no temporary file stays. (After a failed sync of the
            folder, which the message tells, the file has its new content.)
    """
    state = "unchanged"
    try:
        target = os.path.realpath(path)
        mode = _mode_for(target)
        folder = os.path.dirname(target)
        _make_folder(folder)
        remove_stray(folder)
        with temporary_path(target) as temporary:
            _write(temporary, memoryview(data).cast("B"), mode)
            _compare(temporary, memoryview(data).cast("B"))
            if check is not None:
                check(temporary)
            with _opened(folder, os.O_RDONLY) as fd:
                os.replace(temporary, target)
                state = "it has its new content, but may lose it if the power fails"
                _sync_folder(fd)
    except Exception as error:
        raise FileError(f"{_name(path)}: cannot write: {_cause(error)} ({state})") from error


def write_text(path: PathLike, text: str) -> None:
    """`write_bytes` of `text` in UTF-8."""
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise FileError(f"{_name(path)}: cannot write: the text has no UTF-8 form") from error
    write_bytes(path, data)


def write_json(path: PathLike, value: object) -> None:
    """`write_text` of `value` as indented JSON; FileError for NaN, infinities and other classes."""
    try:
        text = json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise FileError(
            f"{_name(path)}: cannot write: JSON cannot hold it ({one_line(error)}); "
            "give finite Python numbers, strings, lists, dictionaries or None"
        ) from error
    write_text(path, text + "\n")


def write_archive(
    path: PathLike,
    arrays: Mapping[str, np.ndarray],
    meta: Mapping[str, object],
    *,
    kind: str,
    version: int,
) -> None:
    """Write arrays and JSON values as one safetensors file with a SHA-256 over all of it.

    Args:
        arrays: floats of 16 to 64 bits, integers, booleans; any shape and memory order.
        meta: JSON values under string keys (tuples return as lists).
        kind, version: what the file is; `read_archive` asks for the same.

    Raises:
        FileError: as `write_bytes`, and for what the format cannot hold.
    """
    try:
        data = encode_archive(arrays, meta, kind=kind, version=version)
    except (MemoryError, RecursionError, TypeError, ValueError) as error:
        raise FileError(f"{_name(path)}: cannot write: {_cause(error)} (unchanged)") from error
    write_bytes(path, data)


def read_archive(
    path: PathLike, *, kind: str, version: int
) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """Read what `write_archive` wrote: (arrays, meta), in the order written.

    Raises:
        FileError: for a file that is missing, cut short, altered, of another kind or version.
    """
    try:
        return decode_archive(_read(path), kind=kind, version=version)
    except Exception as error:  # a promise: no file, however made, raises anything else
        raise FileError(f"{_name(path)}: {_cause(error)}") from error


def one_line(text: object) -> str:
    """`text` as one printable line of at most 400 characters."""
    line = " ".join(str(text)[:2000].split())
    line = "".join(c if c.isprintable() else "?" for c in line)
    return line if len(line) <= 400 else line[:397] + "..."


def _read(path: PathLike) -> bytearray:
    with _opened(path, os.O_RDONLY | os.O_NONBLOCK) as fd:  # a pipe must not block
        status = os.fstat(fd)
        _check_regular(status.st_mode)
        if status.st_size > MAX_FILE:
            raise ValueError(f"has {status.st_size} bytes; at most {MAX_FILE} are read")
        head = os.read(fd, HEAD)
        check_head(head, status.st_size)
        data = bytearray(status.st_size)
        data[: len(head)] = head
        rest = memoryview(data)[len(head) :]
        while rest and (count := os.readv(fd, [rest])):
            rest = rest[count:]
    return data


@contextmanager
def _opened(path: PathLike, flags: int, mode: int = 0o666) -> Iterator[int]:
    fd = os.open(path, flags | os.O_CLOEXEC, mode)
    try:
        yield fd
    except BaseException:
        with suppress(OSError):
            os.close(fd)
        raise
    os.close(fd)  # may report a write that failed late


def _write(path: str, data: memoryview, mode: int) -> None:
    with _opened(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode) as fd:
        while data:
            data = data[os.write(fd, data[:CHUNK]) :]
        os.fsync(fd)


def _compare(path: str, data: memoryview) -> None:
    with _opened(path, os.O_RDONLY) as fd:
        while found := os.read(fd, CHUNK):
            if found != bytes(data[: len(found)]):
                break
            data = data[len(found) :]
    if found or data:
        raise OSError(errno.EIO, "what was read back differs from what was written")


def _make_folder(folder: str) -> None:
    missing = []
    while not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    for path in reversed(missing):
        try:
            os.mkdir(path)
        except FileExistsError:
            if not os.path.isdir(path):
                raise NotADirectoryError(errno.ENOTDIR, "a part of the path is no folder") from None
        with _opened(os.path.dirname(path), os.O_RDONLY) as fd:
            _sync_folder(fd)


def _sync_folder(fd: int) -> None:
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot
            raise


def _mode_for(target: str) -> int:
    """Mode of the new file; refuses to replace what is not a regular file."""
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        return 0o666
    _check_regular(mode)
    return stat.S_IMODE(mode) | stat.S_IRUSR | stat.S_IWUSR


def _check_regular(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder")
    if not stat.S_ISREG(mode):
        raise ValueError("is no regular file; name another")


def _name(path: PathLike) -> str:
    return one_line(os.fspath(path))


def _cause(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return f"{one_line(error.strerror)}; {_ADVICE.get(error.errno, 'try another place')}"
    if isinstance(error, MemoryError):
        return "out of memory; close other programs"
    return one_line(error) or type(error).__name__
