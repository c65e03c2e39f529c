"""`python -m hardware.nir.worker FILE RESULT`: read a NIR file in a process that may die of it."""

from __future__ import annotations

import os
import resource
import sys
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5l, h5o  # type: ignore[attr-defined]

from hardware.files import write_archive
from hardware.nir.reading import KIND, ODD, REFUSED, VERSION

MOST_MEMORY = 3 << 30  # bytes of address space
CPU_SECONDS = 60
LEAST_BUDGET = 64 << 20  # bytes that any file may declare
MOST_BUDGET = 2 << 30
LARGEST_RATIO = 200  # declared bytes per byte of the file beyond that
MOST_OBJECTS = 200_000
DEEPEST = 64
FILTERS = {1: "deflate", 2: "shuffle", 3: "fletcher32"}
MOST_STRINGS = 200_000


class Refusal(Exception):
    """What the file holds is not read; the text says why."""


class Reader:
    """Walks a file from its root, object by object."""

    def __init__(self, path: str) -> None:
        size = os.path.getsize(path)
        self.left = min(MOST_BUDGET, max(LEAST_BUDGET, LARGEST_RATIO * size))
        self.seen: set[int] = set()
        self.arrays: dict[str, np.ndarray] = {}

    def group(self, group: h5py.Group, where: str, depth: int) -> dict[str, Any]:
        """Everything in a group, by name."""
        self._meet(group, where, depth)
        found = {}
        for name in group:
            name, place = str(name), f"{where}/{name}"
            if group.id.links.get_info(name.encode()).type != h5l.TYPE_HARD:
                raise Refusal(f"'{place}' is a link to another place or file; NIR needs none")
            inner = group[name]
            if isinstance(inner, h5py.Group):
                found[name] = {"group": self.group(inner, place, depth + 1)}
            elif isinstance(inner, h5py.Dataset):
                found[name] = self.dataset(inner, place, depth + 1)
            else:
                raise Refusal(f"'{place}' is neither a group nor data")
        return found

    def dataset(self, data: h5py.Dataset, where: str, depth: int) -> dict[str, Any]:
        """An array or a text."""
        self._meet(data, where, depth)
        creation = data.id.get_create_plist()
        if creation.get_external_count():
            raise Refusal(f"'{where}' keeps its data in other files")
        if creation.get_layout() not in (h5d.COMPACT, h5d.CONTIGUOUS, h5d.CHUNKED):
            raise Refusal(f"'{where}' is a view of other data sets")
        for index in range(creation.get_nfilters()):
            if (code := creation.get_filter(index)[0]) not in FILTERS:
                raise Refusal(
                    f"'{where}' is packed by filter {code}; {', '.join(FILTERS.values())} are read"
                )
        if data.shape is None:
            raise Refusal(f"'{where}' is empty")
        text = h5py.check_string_dtype(data.dtype)
        count = int(np.prod(data.shape, dtype=object)) if data.shape else 1
        if text is not None:
            if count > MOST_STRINGS:
                raise Refusal(f"'{where}' holds {count} texts; at most {MOST_STRINGS} are read")
            self._take(count * (text.length or 8), where)
            return {"text": _decoded(data[()], where)}
        if data.dtype.kind not in "iufb" or data.dtype.itemsize > 8:
            raise Refusal(f"'{where}' has the type {data.dtype}; whole and real numbers are read")
        if data.chunks is not None:
            self._take(int(np.prod(data.chunks, dtype=object)) * data.dtype.itemsize, where)
        self._take(count * data.dtype.itemsize, where)
        key = str(len(self.arrays))
        self.arrays[key] = np.asarray(data[()]).astype(data.dtype.newbyteorder("="))
        return {"array": key}

    def _meet(self, thing: h5py.Group | h5py.Dataset, where: str, depth: int) -> None:
        address = h5o.get_info(thing.id).addr
        if address in self.seen:
            raise Refusal(f"'{where}' is met twice: the file contains itself or repeats a part")
        self.seen.add(address)
        if len(self.seen) > MOST_OBJECTS or depth > DEEPEST:
            raise Refusal(f"more than {MOST_OBJECTS} objects, or more than {DEEPEST} levels")

    def _take(self, size: int, where: str) -> None:
        self.left -= size
        if self.left < 0:
            raise Refusal(f"'{where}' declares more data than a file of this size should hold")


def _decoded(value: Any, where: str) -> Any:
    """Text of bytes, in nested lists for arrays of them."""
    if isinstance(value, np.ndarray):
        return [_decoded(inner, where) for inner in value]
    try:
        return value.decode() if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError:
        raise Refusal(f"'{where}' is no text in UTF-8") from None


def main() -> int:
    """Read, and write what was found; the exit code says how it went."""
    path, result = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        reader = Reader(path)
        with h5py.File(path, "r", locking=False) as file:
            tree = {"group": reader.group(file, "", 0)}
        if "node" not in tree["group"] or "group" not in tree["group"]["node"]:
            raise Refusal("is no NIR file: it has no group 'node'")
        write_archive(
            result, reader.arrays, {"tree": tree["group"]["node"]}, kind=KIND, version=VERSION
        )
    except Refusal as reason:
        print(reason, file=sys.stderr)
        return REFUSED
    except (OSError, MemoryError) as error:
        words = "out of memory" if isinstance(error, MemoryError) else "is no HDF5 file, or damaged"
        print(f"{words} ({' '.join(str(error).split())[:150]})", file=sys.stderr)
        return REFUSED
    except Exception as error:  # h5py raises many classes on damaged files
        print(f"is damaged ({' '.join(str(error).split())[:150]})", file=sys.stderr)
        return ODD
    return 0


if __name__ == "__main__":
    sys.exit(main())
