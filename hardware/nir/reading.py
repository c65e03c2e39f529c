"""NIR files, which are HDF5, read without trusting them.

HDF5 can point into other files, hold more than its size suggests, contain itself, and crash its own
library. So a process of its own with limits of memory and time reads the file
(`hardware.nir.worker`) and hands over plain arrays, names and numbers.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from hardware.errors import FileError, NirError
from hardware.files import read_archive
from hardware.jobs.interpreter import fresh_environment

KIND, VERSION = "nir-reading", 1
SECONDS = 120.0  # of the whole reading
REFUSED, ODD = (
    3,
    4,
)  # exit codes of the worker: with a reason on its last line, or any other failure


def read_nir(path: str | os.PathLike[str], *, seconds: float = SECONDS) -> dict[str, Any]:
    """A NIR file as nested dictionaries, for `from_nir`.

    Raises:
        NirError: the package h5py is missing.
        FileError: the file is missing, no NIR file, damaged, or holds what is not read: links other than
            hard ones, external or virtual data, unusual filters or types, cycles, more than its size
            warrants.
    """
    if find_spec("h5py") is None:
        raise NirError(
            "NIR files need the package h5py, which is not installed; run `pip install nir`"
        )
    name = os.fspath(path)
    if not Path(name).is_file():
        raise FileError(f"{name}: no such file; give one that a framework wrote as NIR")
    with tempfile.TemporaryDirectory(prefix="spikingmoe-nir-") as folder:
        result = str(Path(folder) / "result.safetensors")
        command = [sys.executable, "-m", "hardware.nir.worker", os.path.realpath(name), result]
        try:
            done = subprocess.run(
                command,
                # No filters but the built-in ones: a plug-in is code.
                env=fresh_environment() | {"HDF5_PLUGIN_PATH": "::"},
                capture_output=True,
                text=True,
                errors="replace",
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise FileError(
                f"{name}: reading it took more than {seconds:g} s; it was given up"
            ) from None
        if done.returncode == REFUSED:
            reason = done.stderr.strip().splitlines()[-1:] or ["no reason was given"]
            raise FileError(f"{name}: {reason[0][:300]}")
        if done.returncode != 0:
            raise FileError(
                f"{name}: is damaged: the HDF5 library failed on it (exit code {done.returncode})"
            )
        arrays, meta = read_archive(result, kind=KIND, version=VERSION)
    return _tree(meta["tree"], arrays)


def _tree(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """Arrays put back in their places."""
    if "group" in value:
        return {key: _tree(inner, arrays) for key, inner in value["group"].items()}
    if "array" in value:
        return arrays[value["array"]]
    return value["text"]
