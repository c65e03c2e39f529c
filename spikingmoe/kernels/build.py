"""Compiles the CPU kernels once per machine, source and compiler, and loads them.

The library lies in a cache folder ($SPIKINGMOE_CACHE, else ~/.cache/spikingmoe). Its name is a hash of
all it depends on, so that a stale one is never loaded, and a hash of its content, so that a damaged one
is not either (the dynamic linker would map it and the process die at the missing page): it is made
anew. Where no compiler is found, or SPIKINGMOE_KERNELS=off, there are no kernels: the plain form runs,
and a warning says so once.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import platform
import shlex
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
    "-shared",
    "-fPIC",
)
OPENMP = "-fopenmp"
SERIAL = "serial-"  # begins the name of a library without it
COMPILE_SECONDS = 300


class KernelWarning(UserWarning):
    """Fused kernels are not to be had; the plain form, which is slower, runs in their place."""


@functools.cache
def load_library() -> ctypes.CDLL | None:
    """The kernels of this machine's CPU, compiled if need be; None (said once) where that fails."""
    if is_switched_off():
        return None
    try:
        return _load()
    except (OSError, subprocess.SubprocessError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300]
        warnings.warn(
            f"no fused CPU kernels ({reason}); neurons run in their plain form, which is several "
            f"times slower. Install g++ (or set CXX), or SPIKINGMOE_KERNELS=off to silence this",
            KernelWarning,
            stacklevel=2,
        )
        return None


def is_switched_off() -> bool:
    """Whether SPIKINGMOE_KERNELS=off asks for the plain form."""
    return os.environ.get("SPIKINGMOE_KERNELS", "").lower() == "off"


def find_compiled() -> tuple[str, Path | None]:
    """(the compiler, the library that it made before; None where it has not), without compiling.

    Raises:
        RuntimeError: no compiler.
    """
    compiler = _compiler()
    name = f"cpu-{_digest(compiler)}"
    found = _cached(cache_folder(), name) or _cached(cache_folder(), f"{SERIAL}{name}")
    return shlex.join(compiler), found


def cache_folder() -> Path:
    """Where compiled kernels are kept."""
    given = os.environ.get("SPIKINGMOE_CACHE")
    return (Path(given) if given else Path.home() / ".cache" / "spikingmoe") / "kernels"


def _load() -> ctypes.CDLL:
    compiler = _compiler()
    name = f"cpu-{_digest(compiler)}"
    found = _cached(cache_folder(), name)
    if found is None and (found := _cached(cache_folder(), f"{SERIAL}{name}")) is not None:
        _warn_of_one_thread(compiler, f"; with OpenMP installed, remove {found}")
    if found is not None:
        try:
            return ctypes.CDLL(str(found))
        except OSError:  # whole, but not for this system: say, another C library
            found.unlink(missing_ok=True)
    return ctypes.CDLL(str(_compile(compiler, name)))


def _cached(folder: Path, name: str) -> Path | None:
    """An undamaged library of this name."""
    for library in sorted(folder.glob(f"{name}-*.so")):
        with contextlib.suppress(OSError):  # another process may have removed it meanwhile
            if library.name == _file_name(name, library):
                return library
    return None


def _file_name(name: str, library: Path) -> str:
    return f"{name}-{hashlib.sha256(library.read_bytes()).hexdigest()[:24]}.so"


def _compile(compiler: list[str], name: str) -> Path:
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        work = tempfile.TemporaryDirectory(dir=folder, prefix="build-")
    except OSError as error:
        raise RuntimeError(
            f"the cache folder {folder} cannot be written: {error.strerror}; "
            f"set SPIKINGMOE_CACHE to a folder that can"
        ) from error
    with work:
        made = Path(work.name) / "kernels.so"
        if _run_compiler(compiler, [OPENMP], made).returncode != 0:
            done = _run_compiler(compiler, [], made)
            if done.returncode != 0:
                raise RuntimeError(f"{shlex.join(compiler)} failed: {done.stderr}")
            _warn_of_one_thread(compiler, "")
            name = f"{SERIAL}{name}"
        library = folder / _file_name(name, made)
        os.replace(made, library)  # whole or not at all; of two processes the later one wins
    return library


def _warn_of_one_thread(compiler: list[str], more: str) -> None:
    warnings.warn(
        f"{shlex.join(compiler)} has no OpenMP: fused CPU kernels run on one thread{more}",
        KernelWarning,
        stacklevel=3,
    )


def _run_compiler(
    compiler: list[str], flags: list[str], made: Path
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*compiler, *FLAGS, *flags, *(str(HERE / name) for name in SOURCES), "-o", str(made)],
        capture_output=True,
        text=True,
        timeout=COMPILE_SECONDS,
        check=False,
    )


def _compiler() -> list[str]:
    """The compiler with its own arguments, as in CXX="ccache g++"."""
    wanted = shlex.split(os.environ.get("CXX", ""))
    for name in wanted[:1] or ["g++", "clang++", "c++"]:
        found = shutil.which(name)
        if found:
            return [found, *wanted[1:]]
    tried = wanted[0] if wanted else "g++, clang++ or c++"
    raise RuntimeError(f"no C++ compiler: {tried} is not on the PATH")


def _digest(compiler: list[str]) -> str:
    version = subprocess.run(
        [*compiler, "--version"], capture_output=True, text=True, timeout=30, check=True
    )
    parts = (version.stdout, *compiler[1:], *FLAGS, OPENMP, _processor())
    known = hashlib.sha256("\0".join(parts).encode())
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
