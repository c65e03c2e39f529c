"""The environment of a fresh interpreter that runs a module of ours."""

from __future__ import annotations

import os
from pathlib import Path

import hardware


def fresh_environment(*, threads: int = 1) -> dict[str, str]:
    """The caller's, with the folder that holds `hardware` first on the path, and nothing of the working
    folder's on it.

    Args:
        threads: of the libraries that NumPy computes with.
    """
    root = str(Path(hardware.__file__).parents[1])
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {
        **os.environ,
        **dict.fromkeys(names, str(threads)),
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONSAFEPATH": "1",
    }
