"""Memory that is freed stays with the process, instead of going back and coming again page by page."""

from __future__ import annotations

import ctypes
import functools
import platform

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # numbers of glibc's mallopt parameters
LARGEST = 2**30  # bytes of a block that is kept; mallopt takes an int


@functools.cache
def keep_freed_memory() -> bool:
    """Have glibc's malloc keep large blocks that are freed; whether that was possible.

    By default every tensor above 32 MiB is mapped anew, and the system clears it a page of 4 KiB at a
    time: 17 ms for the 34 MB of spikes that a kernel writes in 3 ms. A training step allocates the
    same blocks again and again. It holds for the whole process; elsewhere than under glibc nothing is
    changed, and nothing but the speed depends on it.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return all(mallopt(name, LARGEST) == 1 for name in (MMAP_THRESHOLD, TRIM_THRESHOLD))
