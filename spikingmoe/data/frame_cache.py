"""Frames of events kept as one checksummed file, so that only the first start counts them.

The only module of `spikingmoe.data` that knows `hardware`: it uses its files.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hardware.errors import FileError
from hardware.files import MAX_FILE, read_archive, write_archive

KIND, FORMAT_VERSION = "spikingmoe-frames", 1
MOST_BYTES = MAX_FILE - (1 << 20)  # of arrays in one file


def read_frames(path: Path, about: Mapping[str, object]) -> dict[str, np.ndarray] | None:
    """The arrays of a file that was written for exactly this; None if there is none such.

    A damaged file counts as none: it is made again from the recordings.
    """
    if not path.exists():
        return None
    try:
        arrays, meta = read_archive(path, kind=KIND, version=FORMAT_VERSION)
    except FileError:
        return None
    return arrays if meta == dict(about) else None


def write_frames(path: Path, arrays: Mapping[str, np.ndarray], about: Mapping[str, object]) -> None:
    """Keep the arrays and what they were made of; FileError if the place takes no file."""
    write_archive(path, arrays, about, kind=KIND, version=FORMAT_VERSION)
