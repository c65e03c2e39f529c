"""Unpacking of archives from strangers: known files alone, in a temporary folder, then renamed.

The caller says which members it wants and under what names; links, devices, paths that lead out of the
archive, and sizes beyond the limits are refused by name before anything of them is written.
"""

from __future__ import annotations

import contextlib
import gzip
import lzma
import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from spikingmoe.data.download import sync_folder

CHUNK = 1 << 20
SUFFIX = ".unpacking"


class UnpackError(ValueError):
    """An archive that is damaged or holds what it must not."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an archive may hold at most: members, bytes of one, bytes of all."""

    members: int
    member_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class _Member:
    name: str
    size: int
    is_file: bool
    is_folder: bool
    open: Callable[[], IO[bytes] | None]


Wanted = Callable[[str], str | None]


def unpack(
    archive: Path, folder: Path, wanted: Wanted, limits: Limits, *, nested: bool = False
) -> int:
    """Put the wanted members of a tar or zip archive into `folder`, which appears whole or not at all.

    Args:
        folder: a folder of that name is replaced.
        wanted: from a member's name to its path in `folder`; None leaves it out.
        nested: the archive may hold archives NAME.zip (which `wanted` leaves at the top): each of them
            is unpacked in its turn, members by the names NAME/MEMBER.

    Returns:
        The number of files written.

    Raises:
        UnpackError: a damaged archive, a hostile or too large member, nothing wanted in it.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_unfinished(folder)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=SUFFIX, dir=folder.parent))
        try:
            new = work / "new"
            new.mkdir()
            count = extract(archive, new, wanted, limits)
            if nested:
                count += _extract_nested(new, wanted, limits)
            if not count:
                raise UnpackError(f"{archive}: holds none of the files of {folder.name}")
            if folder.exists():
                os.rename(folder, work / "old")
            os.rename(new, folder)
            sync_folder(folder.parent)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise UnpackError(
            f"{folder}: cannot be written ({error.strerror}); free some space or use another --data-dir"
        ) from None
    return count


def extract(archive: Path, folder: Path, wanted: Wanted, limits: Limits) -> int:
    """Write the wanted members into an existing folder; see `unpack`."""
    count = total = 0
    written: set[str] = set()
    for number, member in enumerate(_members(archive)):
        total += member.size
        _check(archive, member, number, total, limits)
        target = wanted(member.name) if member.is_file else None
        if target is None:
            continue
        if target in written:
            raise UnpackError(f"{archive}: holds {target} twice; get the archive anew")
        written.add(target)
        path = folder / target
        path.parent.mkdir(parents=True, exist_ok=True)
        with _explained(archive):
            source = member.open()
            assert source is not None, "a regular file can be opened"
            with source, path.open("xb") as file:
                shutil.copyfileobj(source, file, CHUNK)
                file.flush()
                os.fsync(file.fileno())
            if path.stat().st_size != member.size:
                raise EOFError(f"{member.name} is cut short")
        count += 1
    return count


def _extract_nested(folder: Path, wanted: Wanted, limits: Limits) -> int:
    count = 0
    for inner in sorted(folder.glob("*.zip")):
        count += (
            extract(inner, folder, lambda name, inner=inner: wanted(f"{inner.stem}/{name}"), limits)
            - 1
        )
        inner.unlink()
    return count


def remove_unfinished(folder: Path) -> None:
    """Remove what unpackings of `folder` left that were killed; nobody else may be unpacking it."""
    for path in folder.parent.glob(f".{folder.name}.*{SUFFIX}"):
        shutil.rmtree(path, ignore_errors=True)


def _check(archive: Path, member: _Member, number: int, total: int, limits: Limits) -> None:
    name = " ".join(member.name.split())[:80]
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or "\\" in member.name or "\0" in member.name:
        raise UnpackError(
            f"{archive}: member '{name}' leads out of the archive; it was not unpacked"
        )
    if not (member.is_file or member.is_folder):
        raise UnpackError(f"{archive}: member '{name}' is a link or a device; it was not unpacked")
    if number >= limits.members or member.size > limits.member_bytes or total > limits.total_bytes:
        raise UnpackError(
            f"{archive}: member '{name}' ({member.size} bytes, number {number + 1}, {total} bytes so "
            f"far) goes beyond what was published; it was not unpacked"
        )


def _members(archive: Path) -> Iterator[_Member]:
    with _explained(archive):
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                yield from (_zip_member(file, info) for info in file.infolist())
        else:
            with tarfile.open(archive, "r:gz") as file:
                for info in file:
                    yield _Member(
                        info.name,
                        info.size,
                        info.isreg(),
                        info.isdir(),
                        lambda file=file, info=info: file.extractfile(info),
                    )


def _zip_member(file: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Member:
    mode = info.external_attr >> 28  # of Unix: 8 is a regular file, 4 a folder, 0 not said
    return _Member(
        info.filename,
        info.file_size,
        not info.is_dir() and mode in (0, 8),
        info.is_dir(),
        lambda: file.open(info),
    )


@contextlib.contextmanager
def _explained(archive: Path) -> Iterator[None]:
    """Every way in which a damaged archive fails, as one line."""
    try:
        yield
    except (
        tarfile.TarError,
        zipfile.BadZipFile,
        EOFError,
        zlib.error,
        lzma.LZMAError,
        gzip.BadGzipFile,
        NotImplementedError,
        RuntimeError,
    ) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UnpackError(
            f"{archive}: is damaged ({reason}); remove it and download it again"
        ) from None
