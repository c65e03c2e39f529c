"""Were files changed since they were unpacked? A `SHA256SUMS` beside them tells, as `sha256sum` writes it."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

SUMS = "SHA256SUMS"
LINE = re.compile(r"([0-9a-f]{64})[ \t][ *](.+)")


def write_digests(folder: Path, names: Iterable[str]) -> None:
    """Write the digests of the named files, whole or not at all."""
    lines = [f"{file_digest(folder / name)}  {name}\n" for name in names]
    temporary = folder / f".{SUMS}.{os.getpid()}"
    try:
        temporary.write_text("".join(lines))
        os.replace(temporary, folder / SUMS)
    finally:
        temporary.unlink(missing_ok=True)


def check_digests(folder: Path, names: Iterable[str], *, mend: str) -> None:
    """ValueError for the first named file that is not what `SHA256SUMS` says; nothing without one.

    Args:
        mend: what to do about it, for the message.
    """
    listed = _read(folder / SUMS)
    for name in names:
        if name in listed and file_digest(folder / name) != listed[name]:
            raise ValueError(
                f"{folder / name}: was changed since it was unpacked (its SHA-256 is not that in "
                f"{SUMS}); {mend}"
            )


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path) -> dict[str, str]:
    try:
        text = path.read_text(errors="replace")
    except FileNotFoundError:
        return {}
    found = {}
    for number, line in enumerate(filter(str.strip, text.splitlines()), 1):
        match = LINE.fullmatch(line)
        if match is None:
            raise ValueError(
                f"{path}: line {number} is no digest and name, as sha256sum writes them"
            )
        found[match[2]] = match[1]
    return found
