"""`SpikeGraph` to NIR.

NIR has no delays between layers: what a population sends at step t of a sample reaches its readers at
step t of that sample, as in a balanced graph, whose delays only let samples stream. A connection of a
population with itself takes one step in both.
"""

from __future__ import annotations

import io
import json
import math
import os
from typing import Any

import numpy as np

from hardware.errors import NirError
from hardware.files import write_bytes
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import Input, Population, Readout, Relay
from hardware.ir.synapses import AnySynapse, Conv2d, Dense
from hardware.nir.layout import DT, channels_first, nir_order, nir_shape
from hardware.passes.balance_delays import balance_delays

NOTES = "spikingmoe"  # key of the graph's metadata
MOST_ENTRIES = 50_000_000  # of one weight array


def to_nir(graph: SpikeGraph, *, dt: float = DT) -> Any:
    """The graph as a `nir.NIRGraph`.

    LIF populations are `nir.LIF` with tau = dt / (1 - decay) and r = tau / dt, which forward Euler steps
    of `dt` make our neuron; without a leak `nir.IF`. Relays are `nir.Scale` by 1, which sums what
    comes in. `constant` and `clock` inputs are inputs of their own: who runs the graph must
    feed them. Connections into a map that are no convolution become one whose kernel has a tap for
    each position, exactly.

    Args:
        graph: in floating point.

    Raises:
        NirError: a graph in fixed point, connections that NIR cannot express, or `nir` is missing.
    """
    nir = _package()
    if graph.arithmetic != "float":
        raise NirError("NIR holds real weights; export the float graph, not the fixed-point one")
    if not graph.is_balanced:
        graph = balance_delays(graph)
    nodes: dict[str, Any] = {}
    edges: list[tuple[str, str]] = []
    shapes = _shapes(graph)
    for name, population in graph.populations.items():
        _check_name(name)
        nodes[name] = _node(nir, population, shapes[name], dt)
    biased: set[str] = set()
    for number, synapse in enumerate(graph.synapses):
        _add_synapse(nir, graph, shapes, synapse, number, nodes, edges, biased)
    for name, population in graph.populations.items():
        if name not in biased and _has_bias(population):
            raise NirError(
                f"population '{name}' has a bias and no connection that could carry it; give it one "
                f"from an input"
            )
    outputs = [n for n, p in graph.populations.items() if isinstance(p, Readout)]
    for name in outputs:
        nodes[f"{name}.output"] = nir.Output(
            output_type={"output": np.array(nir_shape(shapes[name]))}
        )
        edges.append((name, f"{name}.output"))
    notes = {"time_steps": graph.time_steps, "dt": dt, "populations": _notes(graph)}
    return nir.NIRGraph(
        nodes=nodes, edges=edges, metadata={NOTES: json.dumps(notes)}, type_check=False
    )


def write_nir(path: str | os.PathLike[str], graph: Any) -> None:
    """Write a `nir.NIRGraph` as NIR's HDF5, whole or not at all; FileError as `write_bytes`."""
    nir = _package()
    buffer = io.BytesIO()
    nir.write(buffer, graph)
    write_bytes(path, buffer.getvalue())


def _package() -> Any:
    try:
        import nir
    except ImportError:
        raise NirError(
            "NIR needs the package `nir`, which is not installed; run `pip install nir`"
        ) from None
    return nir


def _check_name(name: str) -> None:
    if "/" in name or name in (".", ".."):
        raise NirError(f"population '{name}': a name in NIR's files has no '/'; rename it")


def _shapes(graph: SpikeGraph) -> dict[str, tuple[int, ...]]:
    """Of each population; a vector that leads into a map is a map of one position."""
    shapes: dict[str, tuple[int, ...]] = {
        name: p.shape if len(p.shape) == 3 else (math.prod(p.shape),)
        for name, p in graph.populations.items()
    }
    for name in reversed(graph.order):
        into_map = any(len(shapes[s.target]) == 3 for s in graph.outgoing(name))
        if len(shapes[name]) == 1 and into_map:
            shapes[name] = (1, 1, *shapes[name])
    return shapes


def _spread(values: np.ndarray, population: Population, shape: tuple[int, ...]) -> np.ndarray:
    """Values that broadcast to the population, in NIR's order and shape."""
    full = np.broadcast_to(np.asarray(values, dtype=np.float64), population.shape)
    return channels_first(full.reshape(shape), shape)


def _node(nir: Any, population: Population, shape: tuple[int, ...], dt: float) -> Any:
    if isinstance(population, Input):
        return nir.Input(input_type={"input": np.array(nir_shape(shape))})
    if isinstance(population, (Relay, Readout)):
        return nir.Scale(scale=np.ones(nir_shape(shape)))
    threshold = _spread(population.threshold, population, shape)
    ones, zeros = np.ones_like(threshold), np.zeros_like(threshold)
    if population.membrane_decay == 1.0:
        return nir.IF(r=ones / dt, v_threshold=threshold, v_reset=zeros)
    leak = 1.0 - population.membrane_decay
    return nir.LIF(
        tau=ones * (dt / leak), r=ones / leak, v_leak=zeros, v_threshold=threshold, v_reset=zeros
    )


def _has_bias(population: Population) -> bool:
    return bool(np.any(np.asarray(getattr(population, "bias", 0.0))))


def _add_synapse(
    nir: Any,
    graph: SpikeGraph,
    shapes: dict[str, tuple[int, ...]],
    synapse: AnySynapse,
    number: int,
    nodes: dict[str, Any],
    edges: list[tuple[str, str]],
    biased: set[str],
) -> None:
    """The synapse's node between its ends; the first one into a population carries its bias."""
    target = graph.populations[synapse.target]
    bias = None
    if synapse.target not in biased and _has_bias(target):
        bias = _spread(target.bias, target, shapes[synapse.target])  # type: ignore[union-attr]
    made, took = _synapse_nodes(nir, graph, shapes, synapse, bias)
    if took:
        biased.add(synapse.target)
    before = synapse.source
    for index, node in enumerate(made):
        name = f"synapse.{number}" + (f".{index}" if len(made) > 1 else "")
        nodes[name] = node
        edges.append((before, name))
        before = name
    edges.append((before, synapse.target))


def _synapse_nodes(
    nir: Any,
    graph: SpikeGraph,
    shapes: dict[str, tuple[int, ...]],
    synapse: AnySynapse,
    bias: np.ndarray | None,
) -> tuple[list[Any], bool]:
    """(nodes in a row, whether they carry the bias)."""
    source, target = shapes[synapse.source], shapes[synapse.target]
    if isinstance(synapse, Conv2d):
        per_channel = None if bias is None else _uniform(bias)
        carried = np.zeros(len(synapse.weight)) if per_channel is None else per_channel
        node = nir.Conv2d(
            input_shape=source[:2],
            weight=np.asarray(synapse.weight, dtype=np.float64),
            stride=synapse.stride,
            padding=synapse.padding,
            dilation=synapse.dilation,
            groups=synapse.groups,
            bias=carried,
        )
        return [node], per_channel is not None
    scale = _one_to_one(graph, synapse) if source == target else None
    if scale is not None:
        return _neuron_by_neuron(nir, channels_first(scale.reshape(source), source), source, bias)
    entries = math.prod(source) * math.prod(target)
    if entries > MOST_ENTRIES:
        raise NirError(
            f"synapse '{synapse.source}' -> '{synapse.target}': NIR knows dense matrices and "
            f"convolutions, and this one would have {entries:,} entries; at most {MOST_ENTRIES:,}"
        )
    weight = _matrix(graph, synapse)[nir_order(target)][:, nir_order(source)]
    if len(target) != 3:
        before = [] if len(source) != 3 else [_flatten(nir, source)]
        if bias is None:
            return [*before, nir.Linear(weight=weight)], False
        return [*before, nir.Affine(weight=weight, bias=bias.ravel())], True
    return _into_map(nir, synapse, weight, source, target, bias)


def _neuron_by_neuron(
    nir: Any, scale: np.ndarray, shape: tuple[int, ...], bias: np.ndarray | None
) -> tuple[list[Any], bool]:
    """A Scale; with a bias, where both are the same all over a channel, a 1x1 convolution.

    It is no depthwise one: NIR's own check of types takes that for a map of one channel.
    """
    if bias is None or len(shape) != 3:
        return [nir.Scale(scale=scale)], False
    scales, biases = _uniform(scale), _uniform(bias)
    if scales is None or biases is None:
        return [nir.Scale(scale=scale)], False
    node = nir.Conv2d(
        input_shape=shape[:2],
        weight=np.diag(scales)[:, :, None, None],
        stride=(1, 1),
        padding=(0, 0),
        dilation=(1, 1),
        groups=1,
        bias=biases,
    )
    return [node], True


def _into_map(
    nir: Any,
    synapse: AnySynapse,
    weight: np.ndarray,
    source: tuple[int, ...],
    target: tuple[int, ...],
    bias: np.ndarray | None,
) -> tuple[list[Any], bool]:
    """A matrix into a map, as a convolution with a tap for each position.

    From one position to many the kernel is as large as the target, from many to one as the source.
    """
    height, width, channels = target
    if len(source) == 3 and (height, width) == (1, 1):
        kernel = weight.reshape(channels, source[2], source[0], source[1])
        padding, size = (0, 0), source[:2]
    elif len(source) == 3 and source[:2] == (1, 1):
        taps = weight.reshape(channels, height, width, source[2])
        kernel = taps[:, ::-1, ::-1].transpose(0, 3, 1, 2)
        padding, size = (height - 1, width - 1), (1, 1)
    else:
        raise NirError(
            f"synapse '{synapse.source}' {source} -> '{synapse.target}' {target}: NIR connects maps by "
            f"convolutions and neuron by neuron only"
        )
    per_channel = None if bias is None else _uniform(bias)
    node = nir.Conv2d(
        input_shape=size,
        weight=np.ascontiguousarray(kernel),
        stride=(1, 1),
        padding=padding,
        dilation=(1, 1),
        groups=1,
        bias=np.zeros(channels) if per_channel is None else per_channel,
    )
    return [node], per_channel is not None


def _flatten(nir: Any, shape: tuple[int, ...]) -> Any:
    return nir.Flatten(input_type={"input": np.array(nir_shape(shape))}, start_dim=0, end_dim=-1)


def _matrix(graph: SpikeGraph, synapse: AnySynapse) -> np.ndarray:
    if isinstance(synapse, Dense):
        return np.asarray(synapse.weight, dtype=np.float64)
    return graph.matrix(synapse).toarray().astype(np.float64)


def _one_to_one(graph: SpikeGraph, synapse: AnySynapse) -> np.ndarray | None:
    """The diagonal of a synapse that connects each neuron with its like alone, else None."""
    if isinstance(synapse, Dense):
        return None
    matrix = graph.matrix(synapse).tocoo()
    if not np.array_equal(matrix.row, matrix.col):
        return None
    return graph.matrix(synapse).diagonal().astype(np.float64)


def _uniform(bias: np.ndarray) -> np.ndarray | None:
    """(C,) of a bias (C, height, width) that is the same at all positions, else None."""
    flat = bias.reshape(len(bias), -1)
    return flat[:, 0].copy() if bool((flat == flat[:, :1]).all()) else None


def _notes(graph: SpikeGraph) -> dict[str, dict[str, object]]:
    """What NIR has no place for, so that our own files come back whole."""
    found: dict[str, dict[str, object]] = {}
    for name, population in graph.populations.items():
        notes: dict[str, object] = {"shape": list(population.shape), "role": population.role}
        if isinstance(population, Input):
            notes |= {"kind": population.kind, "limit": population.limit, "bits": population.bits}
            notes["clock_step"] = population.clock_step
        elif not isinstance(population, Readout):
            notes["scale_group"] = population.scale_group
        found[name] = notes
    return found
