"""Compiles the CPU kernels once per machine, source and compiler, and loads them.

The library lies in a cache folder ($SPIKINGMOE_CACHE, else ~/.cache/spikingmoe) under a name that is a
hash of all it depends on, so a stale one is never loaded. Where no compiler is found, or
SPIKINGMOE_KERNELS=off, there are no kernels: the plain form runs, and a warning says so once.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = ("lif.cpp", "norm.cpp", "sequences.cpp")
HEADERS = ("common.h",)
# No contraction to fused multiply-adds: spikes are those of torch's own operations, bit for bit.
FLAGS = (
    "-O3",
    "-march=native",
    "-std=c++17",
    "-ffp-contract=off",
    "-fno-trapping-math",
    "-fno-math-errno",
    "-fopenmp",
    "-shared",
    "-fPIC",
)
COMPILE_SECONDS = 300


class KernelWarning(UserWarning):
    """Fused kernels are not to be had; the plain form, which is slower, runs in their place."""


@functools.cache
def load_library() -> ctypes.CDLL | None:
    """The kernels of this machine's CPU, compiled if need be; None (said once) where that fails."""
    if os.environ.get("SPIKINGMOE_KERNELS", "").lower() == "off":
        return None
    try:
        return ctypes.CDLL(str(_compiled()))
    except (OSError, subprocess.SubprocessError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        warnings.warn(
            f"no fused CPU kernels ({reason}); neurons run in their plain form, which is several "
            f"times slower. Install g++ (or set CXX), or SPIKINGMOE_KERNELS=off to silence this",
            KernelWarning,
            stacklevel=2,
        )
        return None


def cache_folder() -> Path:
    """Where compiled kernels are kept."""
    given = os.environ.get("SPIKINGMOE_CACHE")
    return (Path(given) if given else Path.home() / ".cache" / "spikingmoe") / "kernels"


def _compiled() -> Path:
    compiler = _compiler()
    folder = cache_folder()
    library = folder / f"cpu-{_digest(compiler)}.so"
    if library.exists():
        return library
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="build-") as work:
        made = Path(work) / library.name
        sources = [str(HERE / name) for name in SOURCES]
        done = subprocess.run(
            [compiler, *FLAGS, *sources, "-o", str(made)],
            capture_output=True,
            text=True,
            timeout=COMPILE_SECONDS,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"{compiler} failed: {done.stderr}")
        os.replace(made, library)  # whole or not at all; of two processes the later one wins
    return library


def _compiler() -> str:
    wanted = os.environ.get("CXX")
    for name in [wanted] if wanted else ["g++", "clang++", "c++"]:
        found = shutil.which(name)
        if found:
            return found
    raise RuntimeError(f"no C++ compiler: {wanted or 'g++, clang++ or c++'} is not on the PATH")


def _digest(compiler: str) -> str:
    version = subprocess.run(
        [compiler, "--version"], capture_output=True, text=True, timeout=30, check=True
    )
    known = hashlib.sha256("\0".join((version.stdout, *FLAGS, _processor())).encode())
    for name in (*SOURCES, *HEADERS):
        known.update((HERE / name).read_bytes())
    return known.hexdigest()[:24]


def _processor() -> str:
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() + platform.machine()
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join(dict.fromkeys(line for line in lines if line.startswith(wanted)))
