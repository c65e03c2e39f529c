"""The environment of an interpreter that runs our modules: its path, its threads, its matrix kernels."""

from __future__ import annotations

import os
import sys
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


def matrix_kernels(cpu_info: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """The variable that tells OpenBLAS which kernels this processor can run; empty if in doubt.

    OpenBLAS chooses them by the processor's model number and takes those for SSE3 where it is newer
    than the library, which makes products five times slower (seen with NumPy 1.26).
    """
    try:
        lines = cpu_info.read_text().splitlines()
    except OSError:
        return {}
    flags = next((set(line.split()) for line in lines if line.startswith("flags")), set())
    if {"avx512f", "avx512dq", "avx512bw", "avx512vl"} <= flags:
        return {"OPENBLAS_CORETYPE": "SkylakeX"}
    return {"OPENBLAS_CORETYPE": "Haswell"} if {"avx2", "fma"} <= flags else {}


def choose_matrix_kernels() -> None:
    """Set what `matrix_kernels` says for this process, unless the user has or NumPy is loaded already."""
    if "numpy" not in sys.modules:
        for name, value in matrix_kernels().items():
            os.environ.setdefault(name, value)
