"""A `SpikeGraph` as JSON-able structure and arrays, and as one file."""

from __future__ import annotations

import dataclasses
import math
import operator
import os
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import numpy as np

from hardware.errors import FileError, GraphError
from hardware.files import one_line, read_archive, write_archive
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import LIF, Input, Population, Readout, Relay
from hardware.ir.synapses import AnySynapse, Conv2d, Dense, Sparse
from hardware.ir.validate import MAX_NEURONS

FORMAT_VERSION = 1
KIND = "spikegraph"
MAX_INTEGER = 2**31 - 1  # larger delays, strides, counts mean nothing
MAX_AXES = 8

_POPULATIONS = {cls.__name__: cls for cls in (Input, LIF, Relay, Readout)}
_SYNAPSES = {cls.__name__: cls for cls in (Dense, Conv2d, Sparse)}
_KEYS = {"time_steps", "arithmetic", "gate_limits", "notes", "populations", "synapses"}
_ARRAY = "np.ndarray"


def save_graph(graph: SpikeGraph, path: str | os.PathLike[str]) -> None:
    """Write the graph as one archive (see `hardware.archive`); FileError if that fails.

    What is written is first read back from its parts, so that what saves also loads.
    """
    structure, arrays = to_arrays(graph)
    try:
        from_arrays(structure, arrays)
    except GraphError as error:
        raise FileError(f"{one_line(path)}: cannot write: {one_line(error)} (unchanged)") from error
    write_archive(path, arrays, structure, kind=KIND, version=FORMAT_VERSION)


def load_graph(path: str | os.PathLike[str]) -> SpikeGraph:
    """Read a graph that `save_graph` wrote; FileError for anything else."""
    arrays, structure = read_archive(path, kind=KIND, version=FORMAT_VERSION)
    try:
        return from_arrays(structure, arrays)
    except Exception as error:  # a promise: no file, however made, raises anything else
        cause = one_line(error) or type(error).__name__
        raise FileError(f"{one_line(path)}: holds no valid program: {cause}") from error


def to_arrays(graph: SpikeGraph) -> tuple[dict[str, object], dict[str, np.ndarray]]:
    """The graph as (structure, arrays).

    `structure` holds every field; an array stands in it as [dtype, shape] and in `arrays` under
    "populations/INDEX/FIELD" or "synapses/INDEX/FIELD". Equal graphs give equal structures.
    """
    arrays: dict[str, np.ndarray] = {}
    structure: dict[str, object] = {
        "time_steps": graph.time_steps,
        "arithmetic": graph.arithmetic,
        "gate_limits": {name: operator.index(k) for name, k in graph.gate_limits.items()},
        "notes": graph.notes,
        "populations": [
            _write_part(part, f"populations/{index}", arrays)
            for index, part in enumerate(graph.populations.values())
        ],
        "synapses": [
            _write_part(part, f"synapses/{index}", arrays)
            for index, part in enumerate(graph.synapses)
        ],
    }
    return structure, arrays


def from_arrays(structure: Mapping[str, object], arrays: Mapping[str, np.ndarray]) -> SpikeGraph:
    """The graph that `to_arrays` took apart.

    Raises:
        GraphError: naming what is missing, unknown, of the wrong type or against a graph's rules.
    """
    _check_keys("the structure", structure, _KEYS)
    unused = dict(arrays)
    populations: dict[str, Population] = {}
    for index, entry in enumerate(_read_list("populations", structure["populations"])):
        population = _read_part(entry, f"populations/{index}", _POPULATIONS, unused)
        if population.name in populations:
            raise GraphError(f"population '{population.name}' is listed twice")
        populations[population.name] = population
    synapses: list[AnySynapse] = [
        _read_part(entry, f"synapses/{index}", _SYNAPSES, unused)
        for index, entry in enumerate(_read_list("synapses", structure["synapses"]))
    ]
    if unused:
        raise GraphError(f"array '{min(unused)}' belongs to no population or synapse")
    gate_limits, notes = structure["gate_limits"], structure["notes"]
    if not isinstance(gate_limits, dict):
        _refuse("gate_limits", gate_limits, "a dictionary")
    if not isinstance(notes, dict):
        _refuse("notes", notes, "a dictionary")
    for router, limit in gate_limits.items():
        if _read_int(f"gate_limits of '{router}'", limit) < 1:
            _refuse(f"gate_limits of '{router}'", limit, "an integer of at least 1")
    return SpikeGraph(
        populations=populations,
        synapses=tuple(synapses),
        time_steps=_read_int("time_steps", structure["time_steps"]),
        arithmetic=_read_str("arithmetic", structure["arithmetic"]),
        gate_limits=gate_limits,
        notes=notes,
    )


def _write_part(
    part: Population | AnySynapse, prefix: str, arrays: dict[str, np.ndarray]
) -> dict[str, object]:
    entry: dict[str, object] = {"class": type(part).__name__}
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if field.type == _ARRAY:
            array = np.asarray(value)
            array = np.asarray(array, dtype=array.dtype.newbyteorder("<"), order="C")
            arrays[f"{prefix}/{field.name}"] = array
            entry[field.name] = [array.dtype.name, list(array.shape)]
        else:
            try:
                entry[field.name] = _WRITERS[str(field.type)](value)
            except (TypeError, ValueError, OverflowError) as error:
                raise GraphError(
                    f"{prefix}: {field.name} is {value!r}; use {field.type}"
                ) from error
    return entry


def _read_part(
    entry: object, prefix: str, classes: Mapping[str, type], unused: dict[str, np.ndarray]
):
    if not isinstance(entry, dict) or not isinstance(entry.get("class"), str):
        _refuse(prefix, entry, "a dictionary with a class")
    cls = classes.get(entry["class"])
    if cls is None:
        _refuse(f"{prefix}: class", entry["class"], f"one of {', '.join(classes)}")
    fields = {field.name: str(field.type) for field in dataclasses.fields(cls)}
    _check_keys(prefix, entry, {"class", *fields})
    values = {}
    for name, kind in fields.items():
        where = f"{prefix}/{name}"
        if kind == _ARRAY:
            array = unused.pop(where, None)
            if array is None:
                raise GraphError(f"array '{where}' is missing")
            if entry[name] != [array.dtype.name, list(array.shape)]:
                _refuse(where, entry[name], f"[{array.dtype.name!r}, {list(array.shape)}]")
            values[name] = array
        else:
            values[name] = _READERS[kind](where, entry[name])
    return cls(**values)


def _check_keys(where: str, found: object, expected: set[str]) -> None:
    if not isinstance(found, Mapping) or set(found) != expected:
        wrong = (
            sorted(set(found) ^ expected, key=str) if isinstance(found, Mapping) else "everything"
        )
        raise GraphError(f"{where}: missing or unknown: {wrong}")


def _refuse(where: str, found: object, allowed: str) -> NoReturn:
    raise GraphError(f"{where} is {str(found)[:60]!r}; use {allowed}")


def _read_str(where: str, value: object) -> Any:  # Any: also for Literal types
    if type(value) is not str:
        _refuse(where, value, "a string")
    return value


def _read_int(where: str, value: object) -> int:
    if type(value) is not int or abs(value) > MAX_INTEGER:
        _refuse(where, value, f"an integer in +-{MAX_INTEGER}")
    return value


def _read_float(where: str, value: object) -> float:
    if type(value) is not float:
        _refuse(where, value, "a floating-point number")
    return value


def _read_list(where: str, value: object) -> list:
    if type(value) is not list:
        _refuse(where, value, "a list")
    return value


def _read_shape(where: str, value: object) -> tuple[int, ...]:
    shape = tuple(_read_int(where, n) for n in _read_list(where, value))
    if not 1 <= len(shape) <= MAX_AXES or min(shape) < 1 or math.prod(shape) > MAX_NEURONS:
        _refuse(where, value, f"1 to {MAX_AXES} positive integers, at most {MAX_NEURONS} neurons")
    return shape


def _read_pair(where: str, value: object) -> tuple[int, int]:
    pair = tuple(_read_int(where, n) for n in _read_list(where, value))
    if len(pair) != 2:
        _refuse(where, value, "two integers")
    return pair[0], pair[1]


def _read_expert(where: str, value: object) -> tuple[str, int] | None:
    if value is None:
        return None
    pair = _read_list(where, value)
    if len(pair) != 2:
        _refuse(where, value, "[router, index] or null")
    return _read_str(where, pair[0]), _read_int(where, pair[1])


def _write_str(value: str) -> str:
    if not isinstance(value, str):
        raise TypeError
    return str(value)


def _write_ints(value: tuple[int, ...]) -> list[int]:
    return [operator.index(n) for n in value]


#: By the annotation of a dataclass field; arrays aside.
_WRITERS: dict[str, Callable] = {
    "str": _write_str,
    "InputKind": _write_str,
    "int": operator.index,
    "float": float,
    "tuple[int, ...]": _write_ints,
    "tuple[int, int]": _write_ints,
    "Expert | None": lambda e: None if e is None else [_write_str(e[0]), operator.index(e[1])],
}
_READERS: dict[str, Callable] = {
    "str": _read_str,
    "InputKind": _read_str,
    "int": _read_int,
    "float": _read_float,
    "tuple[int, ...]": _read_shape,
    "tuple[int, int]": _read_pair,
    "Expert | None": _read_expert,
}
