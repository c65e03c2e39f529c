"""Temporary files: a name that tells the writer, and the removal of those whose writer died."""

from __future__ import annotations

import os
import platform
import re
import secrets
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress

STRAY_AGE_S = 86_400.0  # a temporary file this old is stray, whoever its writer was
_TEMPORARY = re.compile(r"\..*\.([0-9a-f]{8})-(\d{1,10})-[0-9a-f]{16}\.tmp", re.DOTALL)
_in_progress: set[str] = set()  # temporary files of this process


@contextmanager
def temporary_path(target: str) -> Iterator[str]:
    """A new path beside `target`, .NAME.PLACE-PID-RANDOM.tmp; at the end no file is there."""
    folder, name = os.path.split(target)
    ending = f"{_place()}-{os.getpid()}-{secrets.token_hex(8)}.tmp"
    path = os.path.join(folder, f".{name[:40]}.{ending}")
    _in_progress.add(path)
    try:
        yield path
    finally:
        with suppress(OSError):
            os.unlink(path)
        _in_progress.discard(path)


def remove_stray(folder: str | os.PathLike[str]) -> None:
    """Remove temporary files in `folder` whose writers are dead; what cannot be removed stays."""
    folder = os.path.realpath(folder)
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            match = _TEMPORARY.fullmatch(entry.name)
            if match and entry.is_file(follow_symlinks=False) and _is_stray(entry, *match.groups()):
                with suppress(OSError):
                    os.unlink(entry.path)


def _place() -> str:
    """Eight digits for where process numbers mean the same: this machine and its pid namespace."""
    namespace = ""
    with suppress(OSError):
        namespace = os.readlink("/proc/self/ns/pid")
    return f"{zlib.crc32(f'{platform.node()} {namespace}'.encode()):08x}"


def _is_stray(entry: os.DirEntry[str], place: str, digits: str) -> bool:
    if entry.path in _in_progress:
        return False
    with suppress(OSError):
        if time.time() - entry.stat(follow_symlinks=False).st_mtime > STRAY_AGE_S:
            return True
    if place != _place():
        return False
    if int(digits) == os.getpid():
        return True  # of an earlier process with our number
    try:
        os.kill(int(digits), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except OSError:
        return False  # alive, of another user
    return False
