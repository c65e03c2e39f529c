"""Reads pickles of plain containers and uint8 arrays without running anything that they name.

A pickle may name any function and have it called. Here the few names that an array needs are answered
by stand-ins which only keep what they are given; every other name is refused. Not even NumPy's own
functions are called with what the file says.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

BYTE = ("u1", b"u1")


class ForbiddenName(pickle.UnpicklingError):
    """A pickle names something that is not data."""


class _Type:
    """Stands for numpy.dtype; only unsigned bytes are known."""

    __slots__ = ("code",)

    def __init__(self, code: object, *_flags: object) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        """Byte order and the like, of no meaning for single bytes."""


class _ArrayClass:
    """Stands for numpy.ndarray, which is only ever passed to `_reconstruct`."""

    __slots__ = ()


class _Array:
    """Stands for the array that `_reconstruct` makes; its content comes as its state."""

    __slots__ = ("content",)

    def __init__(self, *_empty: object) -> None:
        self.content: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _version, shape, kind, fortran, raw = state
        if not isinstance(kind, _Type) or kind.code not in BYTE or type(raw) is not bytes:
            raise pickle.UnpicklingError("an array of anything but unsigned bytes")
        order = "F" if fortran else "C"
        self.content = np.frombuffer(raw, dtype=np.uint8).reshape(shape, order=order)


class _Latin1:
    """Stands for _codecs.encode, by which Python 3 writes bytes into old pickles.

    No function: a pickle could change a function's defaults for the rest of the process.
    """

    __slots__ = ()

    def __call__(self, text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise pickle.UnpicklingError(f"bytes encoded as {encoding!r}")
        return text.encode("latin1")


_STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy", "ndarray"): _ArrayClass,
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _Latin1(),
}


class _Reader(pickle.Unpickler):
    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, encoding="bytes")

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _STAND_INS:
            raise ForbiddenName(f"{module}.{name}")
        return _STAND_INS[module, name]


def read_pickle(path: Path) -> dict[bytes, Any]:
    """The dictionary in a pickle of Python 2 (its strings are bytes); arrays are uint8, read-only.

    Raises:
        ValueError: the file cannot be read, is cut short, holds something else, or names anything
            that is not data (which is not run).
    """
    try:
        with path.open("rb") as file:
            content = _Reader(file).load()
    except ForbiddenName as error:
        raise ValueError(
            f"{path}: is a pickle that calls {error}, which is no data and was not run; "
            f"get the file anew from its publisher"
        ) from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception as error:  # a damaged pickle can fail in any way
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(
            f"{path}: is cut short or damaged ({reason}); remove it and get it anew from its publisher"
        ) from None
    if not isinstance(content, dict):
        raise ValueError(
            f"{path}: holds a {type(content).__name__}; needs a dictionary as published"
        )
    return {k: v.content if isinstance(v, _Array) else v for k, v in content.items()}
