"""The binary format: named arrays and JSON in a safetensors file that is covered by a SHA-256.

    length (8 bytes) {"__metadata__":{"format":"spikingmoe","sha256":"<64 digits>", ...}, ...} data

The digest stands at a fixed place, covers every byte of the file (its own digits taken as zeros) and
is checked before the header is parsed. Content has one canonical header; any other is refused.
This module knows bytes only; `hardware.files` reads and writes them.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping

import numpy as np

MAX_HEADER = 1 << 23  # bytes
MAX_DEPTH = 64  # nesting of `meta`
MAX_AXES = 32
ALTERED = "was cut short or altered; restore a copy or write it again"

_DTYPES = {
    **{f"F{8 * size}": np.dtype(f"<f{size}") for size in (8, 4, 2)},
    **{f"I{8 * size}": np.dtype(f"<i{size}") for size in (8, 4, 2, 1)},
    **{f"U{8 * size}": np.dtype(f"<u{size}") for size in (8, 4, 2, 1)},
    "BOOL": np.dtype(bool),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}
_PREFIX = b'{"__metadata__":{"format":"spikingmoe","sha256":"'
_DIGEST = slice(8 + len(_PREFIX), 8 + len(_PREFIX) + 64)
_ZEROS = "0" * 64
HEAD = _DIGEST.stop  # bytes that `check_head` needs

Entries = dict[str, tuple[str, tuple[int, ...]]]  # name -> (type code of safetensors, shape)


def encode_archive(
    arrays: Mapping[str, np.ndarray], meta: Mapping[str, object], *, kind: str, version: int
) -> bytearray:
    """The bytes of an archive; TypeError, ValueError or RecursionError for what it cannot hold."""
    values = {name: np.asarray(array) for name, array in arrays.items()}
    entries = {name: (_code(name, array), array.shape) for name, array in values.items()}
    content = json.dumps(dict(meta), separators=(",", ":"), allow_nan=False)
    header = _encode_header(_ZEROS, kind, str(version), content, entries)
    if len(header) > MAX_HEADER:
        raise ValueError(f"the header has {len(header)} bytes; at most {MAX_HEADER} are allowed")
    _check_nesting(dict(meta))
    start = 8 + len(header)
    data = bytearray(start + _offsets(entries)[1])
    data[:start] = len(header).to_bytes(8, "little") + header
    for name, view in _views(data, start, entries).items():
        view[...] = values[name]
    seal(data)
    return data


def seal(data: bytearray) -> None:
    """Put the digest of an archive's bytes into its place."""
    data[_DIGEST] = _digest(data)


def check_head(head: bytes, file_size: int) -> None:
    """Raise ValueError unless a file with these first HEAD bytes can be an archive."""
    if len(head) < HEAD or head[8 : _DIGEST.start] != _PREFIX:
        raise ValueError("is no file of this project, or its first bytes are damaged; name another")
    if not HEAD < 8 + int.from_bytes(head[:8], "little") <= min(file_size, 8 + MAX_HEADER):
        raise ValueError(ALTERED)


def decode_archive(
    data: bytearray, *, kind: str, version: int
) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """(arrays, meta) of the bytes of an archive whose head was checked; ValueError if it is none.

    The arrays are writable views of `data`.
    """
    if data[_DIGEST] != _digest(data):
        raise ValueError(ALTERED)
    end = 8 + int.from_bytes(data[:8], "little")
    if not data[8:end].isascii():
        raise ValueError("has a header that is not ASCII; write it again")
    header = _parse_json(data[8:end].decode("ascii"))
    about = header.pop("__metadata__")
    if set(about) != {"format", "sha256", "kind", "version", "content"}:
        raise ValueError("does not say what it is; write it again")
    if about["kind"] != kind:
        raise ValueError(f"is a '{about['kind']}', not a '{kind}'; name another file")
    if about["version"] != str(version):
        raise ValueError(
            f"has version {about['version']} of the format '{kind}', this program reads version "
            f"{version}; write it again or use the program that wrote it"
        )
    entries = {name: _parse_entry(name, entry) for name, entry in header.items()}
    canonical = _encode_header(about["sha256"], kind, str(version), about["content"], entries)
    if data[8:end] != canonical or end + _offsets(entries)[1] != len(data):
        raise ValueError("has a header that contradicts itself; write it again")
    arrays = _views(data, end, entries)
    for name, array in arrays.items():
        if array.dtype == bool and array.size and array.view(np.uint8).max() > 1:
            raise ValueError(
                f"array '{name}' has booleans that are neither 0 nor 1; write it again"
            )
    meta = _parse_json(about["content"]) if type(about["content"]) is str else None
    if not isinstance(meta, dict):
        raise ValueError("has a content that is no JSON object; write it again")
    _check_nesting(meta)
    return arrays, meta


def _digest(data: bytearray) -> bytes:
    view = memoryview(data)
    sha256 = hashlib.sha256(view[: _DIGEST.start])
    sha256.update(_ZEROS.encode())
    sha256.update(view[_DIGEST.stop :])
    return sha256.hexdigest().encode()


def _encode_header(sha256: str, kind: str, version: str, content: str, entries: Entries) -> bytes:
    """The one text of a header, padded with spaces so that the data starts at a multiple of 8."""
    about = {"format": "spikingmoe", "sha256": sha256, "kind": kind, "version": version}
    header: dict[str, object] = {"__metadata__": {**about, "content": content}}
    offsets, _ = _offsets(entries)
    for name, (dtype, shape) in entries.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets[name]}
    text = json.dumps(header, separators=(",", ":")).encode("ascii")
    return text + b" " * (-len(text) % 8)


def _offsets(entries: Entries) -> tuple[dict[str, tuple[int, int]], int]:
    """Where each array lies in the data, wide types first so that all are aligned; and the sum."""
    offsets, end = {}, 0
    for name, (dtype, shape) in sorted(entries.items(), key=lambda e: -_DTYPES[e[1][0]].itemsize):
        start, end = end, end + math.prod(shape) * _DTYPES[dtype].itemsize
        offsets[name] = (start, end)
    return offsets, end


def _views(data: bytearray, start: int, entries: Entries) -> dict[str, np.ndarray]:
    offsets, _ = _offsets(entries)
    return {
        name: np.ndarray(shape, _DTYPES[dtype], data, start + offsets[name][0])
        if 0 not in shape
        else np.zeros(shape, _DTYPES[dtype])
        for name, (dtype, shape) in entries.items()
    }


def _code(name: object, array: np.ndarray) -> str:
    if type(name) is not str or name == "__metadata__":
        raise ValueError(f"an array cannot be called {name!r}; use another name")
    code = _CODES.get(array.dtype.newbyteorder("<"))
    if code is None:
        raise ValueError(f"array '{name}' is {array.dtype}; use one of {', '.join(_DTYPES)}")
    return code


def _parse_entry(name: str, entry: object) -> tuple[str, tuple[int, ...]]:
    if not isinstance(entry, dict):
        raise ValueError(f"array '{name}' is described by no JSON object; write it again")
    dtype, shape = entry.get("dtype"), entry.get("shape")
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise ValueError(f"array '{name}' has the type {dtype!r}; write it again")
    if (
        not isinstance(shape, list)
        or len(shape) > MAX_AXES
        or any(type(n) is not int or not 0 <= n < 2**48 for n in shape)
    ):
        raise ValueError(f"array '{name}' has an impossible shape; write it again")
    return dtype, tuple(shape)


def _parse_json(text: str) -> dict:
    def pairs(items: list[tuple[str, object]]) -> dict[str, object]:
        found = dict(items)
        if len(found) < len(items):
            raise ValueError("a key stands twice")
        return found

    def number(digits: str) -> float:
        value = float(digits)
        if not math.isfinite(value):
            raise ValueError(f"{digits[:20]} is not finite")
        return value

    try:
        return json.loads(text, object_pairs_hook=pairs, parse_float=number, parse_constant=number)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"has a wrong JSON text ({str(error)[:99]}); write it again") from error


def _check_nesting(value: object) -> None:
    """Raise ValueError for keys that are no strings and for more than MAX_DEPTH levels."""
    level = [value]
    for _ in range(MAX_DEPTH):
        for part in level:
            if isinstance(part, dict) and any(type(key) is not str for key in part):
                raise ValueError("a dictionary has keys that are not strings; use strings")
        level = [
            child
            for part in level
            if isinstance(part, (dict, list, tuple))
            for child in (part.values() if isinstance(part, dict) else part)
        ]
        if not level:
            return
    raise ValueError(f"its content is nested deeper than {MAX_DEPTH} levels; flatten it")
