"""NIR to `SpikeGraph`: from any framework onto Lava.

NIR's neurons obey differential equations; they become ours by forward Euler steps of `dt`, as snnTorch
writes them: decay = 1 - dt / tau, the input is weighted by r dt / tau. What has another meaning than
our neuron is refused with the node's name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hardware.errors import GraphError, NirError
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import LIF, Input, Population, Readout, Relay
from hardware.ir.synapses import AnySynapse, Conv2d, Dense, Sparse, conv_output_shape
from hardware.nir.export import NOTES
from hardware.nir.flat import Flat, flatten_graph
from hardware.nir.layout import DT, nir_order, our_shape
from hardware.passes.balance_delays import balance_delays

NEURONS = ("LIF", "IF", "Threshold")
LINEAR = ("Affine", "Linear", "Conv2d", "Scale", "SumPool2d", "AvgPool2d")
VIEWS = ("Flatten",)
DECAY_STEP = 1 / 4096
ROUNDING = 1e-6  # float32 files: a decay this near to a multiple of 1/4096, a gain this near to 1, is meant
REFUSED = {
    "CubaLIF": "its synaptic current is a second state that our neurons lack",
    "CubaLI": "its synaptic current is a second state that our neurons lack",
    "LI": "a leaky integrator that never spikes is no population of ours",
    "I": "an integrator that never spikes is no population of ours",
    "Conv1d": "our maps have two dimensions; write it as a Conv2d of height 1",
    "Delay": "our graphs choose the delays themselves, and one within a step's computation is none of them",
}


@dataclass
class _Signal:
    """What a node gives: a population's messages, seen in NIR's order and in a NIR shape."""

    population: str
    shape: tuple[int, ...]  # NIR's
    order: np.ndarray  # (n,) our flat index of each value


@dataclass
class _Import:
    flat: Flat
    dt: float
    notes: Mapping[str, Mapping[str, Any]]
    populations: dict[str, Population] = field(default_factory=dict)
    synapses: list[AnySynapse] = field(default_factory=list)
    signals: dict[str, _Signal] = field(default_factory=dict)


def from_nir(
    graph: Any, *, time_steps: int | None = None, dt: float | None = None, input_limit: float = 1.0
) -> SpikeGraph:
    """A NIR graph as ours, balanced.

    Affine, Linear, Conv2d, Scale, SumPool2d and AvgPool2d become synapses; where one follows another, a
    relay stands between them. LIF, IF and Threshold become LIF populations; Output the readout, whose
    value is the mean over the window. A connection back to an earlier node takes one step; only a
    population's with itself is allowed.

    Args:
        graph: a `nir.NIRGraph`, or what `read_nir` gave.
        time_steps: length of a window; the file's own if we wrote it, else it must be given.
        dt: seconds per step; the file's own, or 1e-4 as snnTorch has it (Norse: 1e-3).
        input_limit: largest magnitude of the input, for a later quantisation.

    Raises:
        NirError: naming the node that has no place here, and why.
    """
    values = graph if isinstance(graph, Mapping) else graph.to_dict()
    notes = _notes_of(values)
    steps = time_steps if time_steps is not None else notes.get("time_steps")
    if steps is None:
        raise NirError("a NIR graph does not say how long a sample lasts; give time_steps")
    step = dt if dt is not None else float(notes.get("dt", DT))
    if not 0 < step < math.inf:
        raise NirError(f"dt={step} must be a positive number of seconds")
    own = notes.get("populations", {})
    work = _Import(flatten_graph(values), step, own if isinstance(own, Mapping) else {})
    for name in work.flat.order:
        _import_node(work, name, input_limit)
    for name, source in work.flat.loops:
        _import_loop(work, name, source)
    try:
        built = SpikeGraph(
            populations=work.populations,
            synapses=tuple(work.synapses),
            time_steps=int(steps),
            notes={"origin": "NIR"},
        )
        return balance_delays(built)
    except GraphError as error:
        raise NirError(f"the NIR graph means nothing here: {error}") from None


def _notes_of(values: Mapping[str, Any]) -> dict[str, Any]:
    text = (values.get("metadata") or {}).get(NOTES)
    if text is None:
        return {}
    try:
        notes = json.loads(text.decode() if isinstance(text, bytes) else str(text))
    except ValueError:
        raise NirError(f"the file's metadata '{NOTES}' is damaged; write it anew") from None
    return notes if isinstance(notes, dict) else {}


def _import_node(work: _Import, name: str, input_limit: float) -> None:
    node, kind = work.flat.nodes[name], work.flat.nodes[name]["type"]
    if kind in REFUSED:
        raise NirError(f"node '{name}' ({kind}): {REFUSED[kind]}")
    before = [work.signals[source] for source in work.flat.before[name]]
    if kind == "Input":
        shape = _shape(name, node, "shape")
        _add(work, name, _input(work, name, shape, input_limit), shape)
    elif kind == "Output":
        _import_output(work, name, node, before)
    elif kind in VIEWS:
        _import_view(work, name, node, before)
    elif kind in NEURONS:
        _import_neurons(work, name, node, kind, before)
    elif kind in LINEAR:
        _import_linear(work, name, before)
    else:
        raise NirError(
            f"node '{name}' has the type {kind!r}; "
            f"{', '.join((*NEURONS, *LINEAR, *VIEWS, 'Input', 'Output'))} can be imported"
        )


def _add(work: _Import, name: str, population: Population, shape: tuple[int, ...]) -> None:
    """Keep a population; its signal in NIR's order."""
    work.populations[name] = population
    work.signals[name] = _Signal(name, shape, nir_order(our_shape(shape)))


def _noted_shape(work: _Import, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Our shape of a population: as noted where that only regroups a vector, else from NIR's."""
    noted = work.notes.get(name, {}).get("shape")
    if isinstance(noted, list) and all(type(n) is int and n > 0 for n in noted) and noted:
        same_order = len(noted) != 3 or our_shape(shape) == tuple(noted)
        if math.prod(noted) == math.prod(shape) and same_order:
            return tuple(noted)
    return our_shape(shape)


def _input(work: _Import, name: str, shape: tuple[int, ...], limit: float) -> Input:
    notes = work.notes.get(name, {})
    return Input(
        name=name,
        shape=_noted_shape(work, name, shape),
        kind=notes.get("kind", "graded"),
        limit=float(notes.get("limit", limit)),
        bits=int(notes.get("bits", 8)),
        clock_step=int(notes.get("clock_step", 0)),
    )


def _import_output(
    work: _Import, name: str, node: Mapping[str, Any], before: list[_Signal]
) -> None:
    if len(before) == 1 and isinstance(work.populations.get(before[0].population), Readout):
        work.signals[name] = before[0]  # our own export: the readout is there already
        return
    shape = _same_shape(name, before)
    work.populations[name] = Readout(name=name, shape=our_shape(shape))
    work.signals[name] = _Signal(name, shape, nir_order(our_shape(shape)))
    _connect(work, name, 1.0)


def _import_view(work: _Import, name: str, node: Mapping[str, Any], before: list[_Signal]) -> None:
    if len(before) != 1:
        raise NirError(f"node '{name}' (Flatten) has {len(before)} inputs; it needs one")
    signal = before[0]
    start, end = int(node.get("start_dim", 1)), int(node.get("end_dim", -1))
    if start not in (0, 1) or end not in (-1, len(signal.shape) - 1, len(signal.shape)):
        raise NirError(
            f"node '{name}' (Flatten) flattens dimensions {start} to {end}; only all of them can be"
        )
    # start_dim counts the batch in some frameworks and not in others: all dimensions in either case
    work.signals[name] = _Signal(signal.population, (math.prod(signal.shape),), signal.order)


def _import_neurons(
    work: _Import, name: str, node: Mapping[str, Any], kind: str, before: list[_Signal]
) -> None:
    inner = _same_shape(name, before)
    threshold = _parameter(name, node, "threshold" if kind == "Threshold" else "v_threshold")
    if kind != "Threshold" and np.any(_parameter(name, node, "v_reset", 0.0)):
        raise NirError(f"node '{name}' ({kind}): v_reset must be 0, as our neurons reset to zero")
    gain: np.ndarray = np.ones(())
    leak: np.ndarray = np.zeros(())
    decay = {"Threshold": 0.0, "IF": 1.0}.get(kind, 0.0)
    if kind == "IF":
        gain = _parameter(name, node, "r") * work.dt
    if kind == "LIF":
        tau = _parameter(name, node, "tau")
        if not (tau > 0).all():
            raise NirError(f"node '{name}' (LIF): tau must be positive")
        share = work.dt / tau
        decay = _decay(name, 1.0 - share, work.dt)
        gain = _parameter(name, node, "r") * share
        leak = _parameter(name, node, "v_leak", 0.0) * share
    gain = np.where(abs(gain - 1.0) < ROUNDING, 1.0, gain)
    sizes = {p.size for p in (threshold, gain, leak)} - {1}
    if sizes - {math.prod(inner)}:
        raise NirError(
            f"node '{name}' ({kind}): parameters of {sorted(sizes)} neurons, inputs of "
            f"{math.prod(inner)}"
        )
    shape = _noted_shape(work, name, inner)
    notes = work.notes.get(name, {})
    order = nir_order(our_shape(inner))
    population = LIF(
        name=name,
        shape=shape,
        membrane_decay=decay,
        threshold=_to_ours(threshold, shape, order),
        bias=_to_ours(leak, shape, order),
        scale_group=str(notes.get("scale_group", "")),
        role=str(notes.get("role", "neuron")),
    )
    work.populations[name] = population
    work.signals[name] = _Signal(name, inner, order)
    _connect(work, name, gain)


def _decay(name: str, decay: np.ndarray, dt: float) -> float:
    values = np.unique(decay)
    if len(values) > 1:
        raise NirError(
            f"node '{name}' (LIF): {len(values)} different time constants; a population has one decay: "
            f"split it"
        )
    value = float(values[0])
    if not -ROUNDING <= value < 1:
        raise NirError(
            f"node '{name}' (LIF): tau of {dt / (1 - value):g} s is below the step dt={dt:g} s; "
            f"give the dt that the model was trained with"
        )
    nearest = round(value / DECAY_STEP) * DECAY_STEP
    return max(0.0, nearest if abs(nearest - value) < ROUNDING else value)


def _import_linear(work: _Import, name: str, before: list[_Signal]) -> None:
    """Nothing yet if a population takes it alone; a relay where its sum must be kept."""
    followers = work.flat.after[name]
    after = [work.flat.nodes[n]["type"] for n in followers]
    loops_back = any(source == name for _, source in work.flat.loops)
    into_population = len(after) == 1 and (
        after[0] in (*NEURONS, "Output") or _is_identity(work, followers[0])
    )
    if into_population and not _is_identity(work, name):
        shape = _output_shape(work, name)
        work.signals[name] = _Signal("", shape, nir_order(our_shape(shape)))
        return
    if loops_back:
        shape = _output_shape(work, name) if before else ()
        work.signals[name] = _Signal("", shape, nir_order(our_shape(shape)))
        return
    identity = _is_identity(work, name)
    shape = _same_shape(name, before) if identity else _output_shape(work, name)
    notes = work.notes.get(name, {})
    ours = _noted_shape(work, name, shape)
    if notes.get("role") == "readout" and after == ["Output"]:
        work.populations[name] = Readout(name=name, shape=ours)
    else:
        work.populations[name] = Relay(
            name=name, shape=ours, scale_group=str(notes.get("scale_group", ""))
        )
    work.signals[name] = _Signal(name, shape, nir_order(our_shape(shape)))
    if identity:
        _connect(work, name, 1.0)
    else:
        _connect_through(work, name, name, np.ones(()))


def _is_identity(work: _Import, name: str) -> bool:
    """A Scale by 1 only sums what comes in: a population of its own."""
    node = work.flat.nodes[name]
    return (
        node["type"] == "Scale"
        and bool((np.asarray(node["scale"]) == 1.0).all())
        and (len(work.flat.before[name]) != 1 or name in work.notes)
    )


def _connect(work: _Import, name: str, gain: np.ndarray | float) -> None:
    """Synapses into the population `name` from all that lead there."""
    for source in work.flat.before[name]:
        if work.signals[source].population:
            _identity_synapse(work, work.signals[source], name, np.asarray(gain))
        else:
            _connect_through(work, source, name, np.asarray(gain))


def _identity_synapse(work: _Import, signal: _Signal, target: str, gain: np.ndarray) -> None:
    order = work.signals[target].order
    weight = np.broadcast_to(gain.ravel() if gain.size > 1 else gain, order.shape)
    work.synapses.append(
        Sparse(
            source=signal.population,
            target=target,
            rows=order,
            columns=signal.order,
            weight=np.array(weight, dtype=np.float64),
        )
    )


def _connect_through(work: _Import, linear: str, target: str, gain: np.ndarray) -> None:
    """The linear node's synapses from everything before it into `target`, and its bias."""
    node = work.flat.nodes[linear]
    for source in work.flat.before[linear]:
        signal = work.signals[source]
        if not signal.population:
            raise NirError(f"node '{linear}': what comes from '{source}' is no population")
        work.synapses.append(_synapse(work, linear, node, signal, target, gain))
    bias = _bias(linear, node)
    if bias is not None and np.any(bias):
        _add_bias(work, linear, target, bias, gain)


def _import_loop(work: _Import, name: str, source: str) -> None:
    """A connection back: `source` feeds `name`, which comes before it."""
    signal = work.signals[source]
    if signal.population:
        _identity_synapse(work, signal, name, np.ones(()))
        return
    _connect_through(work, source, name, np.ones(()))


def _add_bias(work: _Import, linear: str, target: str, bias: np.ndarray, gain: np.ndarray) -> None:
    population, order = work.populations[target], work.signals[target].order
    full = np.asarray(bias, dtype=np.float64)
    if full.size != len(order):  # per channel of a map
        full = np.repeat(full.ravel(), len(order) // full.size)
    spread = np.empty(len(order))
    spread[order] = full.ravel() * (gain.ravel() if gain.size > 1 else gain)
    spread = spread.reshape(population.shape)
    if isinstance(population, (LIF, Readout)):
        whole = np.broadcast_to(population.bias, population.shape) + spread
        work.populations[target] = _replaced(population, bias=whole)
        return
    constant = "constant"
    if constant not in work.populations:
        work.populations[constant] = Input(name=constant, shape=(1,), kind="constant")
    elif not isinstance(work.populations[constant], Input):
        raise NirError(
            f"node '{linear}': its bias needs an input called 'constant', which is taken"
        )
    rows = np.flatnonzero(spread)
    work.synapses.append(
        Sparse(
            source=constant,
            target=target,
            rows=rows,
            columns=np.zeros(len(rows), dtype=np.int64),
            weight=spread.ravel()[rows],
        )
    )


def _replaced(population: Any, **changes: Any) -> Any:
    return replace(population, **changes)


def _synapse(
    work: _Import,
    name: str,
    node: Mapping[str, Any],
    signal: _Signal,
    target: str,
    gain: np.ndarray,
) -> AnySynapse:
    kind, order = node["type"], work.signals[target].order
    ends: dict[str, Any] = {"source": signal.population, "target": target}
    if kind in ("Affine", "Linear"):
        weight = _matrix(name, node, len(signal.order), len(order))
        ours = np.zeros_like(weight)
        rows = weight * (gain.ravel()[:, None] if gain.size > 1 else gain)
        ours[np.ix_(order, signal.order)] = rows
        return Dense(weight=ours, **ends)
    if kind == "Scale":
        scale = np.broadcast_to(np.asarray(node["scale"], dtype=np.float64).ravel(), order.shape)
        weight = scale * (gain.ravel() if gain.size > 1 else gain)
        return Sparse(rows=order, columns=signal.order, weight=np.array(weight), **ends)
    synapse = _convolution(work, name, node, signal, ends)
    if gain.size > 1:
        per_channel = gain.reshape(len(synapse.weight), -1)
        if np.ptp(per_channel, axis=1).any():
            raise NirError(
                f"node '{name}' ({kind}) leads to neurons whose input weights differ within a channel"
            )
        gain = per_channel[:, 0][:, None, None, None]
    return _replaced(synapse, weight=synapse.weight * gain)


def _convolution(
    work: _Import, name: str, node: Mapping[str, Any], signal: _Signal, ends: dict[str, Any]
) -> Conv2d:
    kind = node["type"]
    if len(signal.shape) != 3:
        raise NirError(f"node '{name}' ({kind}) needs a map (C, height, width), got {signal.shape}")
    source = work.populations[signal.population].shape
    if len(source) != 3 or source != our_shape(signal.shape):
        if math.prod(source) != math.prod(signal.shape) or signal.shape[1:] != (1, 1):
            raise NirError(f"node '{name}' ({kind}): a flattened map cannot become a map again")
        ends = {**ends, "source": _as_map(work, signal)}
    if kind != "Conv2d":
        size = _pair(name, node, "kernel_size")
        weight = np.ones((signal.shape[0], 1, *size))
        if kind == "AvgPool2d":
            weight = weight / math.prod(size)
        return Conv2d(
            weight=weight,
            stride=_pair(name, node, "stride"),
            padding=_pair(name, node, "padding"),
            groups=signal.shape[0],
            **ends,
        )
    weight = np.asarray(node["weight"], dtype=np.float64)
    if weight.ndim != 4 or not np.isfinite(weight).all():
        raise NirError(f"node '{name}' (Conv2d): weight needs four axes of finite numbers")
    stride, dilation = _pair(name, node, "stride"), _pair(name, node, "dilation")
    return Conv2d(
        weight=weight,
        stride=stride,
        padding=_padding(name, node, weight, stride, dilation),
        dilation=dilation,
        groups=int(node["groups"]),
        **ends,
    )


def _as_map(work: _Import, signal: _Signal) -> str:
    """A vector that convolutions read as a map of one position: the population takes that shape."""
    population = work.populations[signal.population]
    shape = (1, 1, math.prod(population.shape))
    arrays = {
        key: np.reshape(getattr(population, key), shape)
        for key in ("threshold", "bias")
        if np.size(getattr(population, key, 0.0)) > 1
    }
    work.populations[signal.population] = _replaced(population, shape=shape, **arrays)
    return signal.population


def _output_shape(work: _Import, name: str) -> tuple[int, ...]:
    """NIR shape of what a linear node gives."""
    node = work.flat.nodes[name]
    kind = node["type"]
    if kind in ("Affine", "Linear"):
        weight = np.asarray(node["weight"])
        if weight.ndim != 2:
            raise NirError(
                f"node '{name}' ({kind}): weight has shape {weight.shape}; needs two axes"
            )
        return (weight.shape[0],)
    inner = _same_shape(name, [work.signals[s] for s in work.flat.before[name]])
    if kind == "Scale":
        return inner
    signal = _Signal("", inner, nir_order(our_shape(inner)))
    probe = _Import(work.flat, work.dt, {})
    probe.populations[""] = Relay(name="", shape=our_shape(inner))
    synapse = _convolution(probe, name, node, signal, {"source": "", "target": ""})
    height, width, channels = conv_output_shape(our_shape(inner), synapse)
    if min(height, width) < 1:
        raise NirError(f"node '{name}' ({kind}): nothing is left of a map {inner}")
    return (channels, height, width)


def _same_shape(name: str, before: list[_Signal]) -> tuple[int, ...]:
    shapes = {signal.shape for signal in before}
    if len(shapes) != 1:
        raise NirError(
            f"node '{name}' takes {len(before)} inputs of shapes {sorted(shapes)}; it needs at least "
            f"one, all alike"
        )
    return shapes.pop()


def _matrix(name: str, node: Mapping[str, Any], sources: int, targets: int) -> np.ndarray:
    weight = np.asarray(node["weight"], dtype=np.float64)
    if weight.shape != (targets, sources) or not np.isfinite(weight).all():
        raise NirError(
            f"node '{name}': weight has shape {weight.shape}; needs ({targets}, {sources}) finite numbers"
        )
    return weight


def _bias(name: str, node: Mapping[str, Any]) -> np.ndarray | None:
    if node["type"] not in ("Affine", "Conv2d"):
        return None
    return _parameter(name, node, "bias")


def _parameter(
    name: str, node: Mapping[str, Any], key: str, default: float | None = None
) -> np.ndarray:
    if node.get(key) is None and default is not None:
        return np.asarray(default)
    try:
        values = np.asarray(node[key], dtype=np.float64)
    except (KeyError, TypeError, ValueError):
        raise NirError(f"node '{name}' ({node['type']}): {key} is missing or no numbers") from None
    if not np.isfinite(values).all():
        raise NirError(f"node '{name}' ({node['type']}): {key} must be finite numbers")
    return values


def _shape(name: str, node: Mapping[str, Any], key: str) -> tuple[int, ...]:
    values = np.asarray(node.get(key)).ravel()
    if values.dtype.kind not in "iu" or len(values) not in (1, 3) or (values < 1).any():
        raise NirError(
            f"node '{name}' ({node['type']}): shape {node.get(key)!r}; needs (n,) or (C, height, width)"
        )
    return tuple(int(v) for v in values)


def _pair(name: str, node: Mapping[str, Any], key: str) -> tuple[int, int]:
    values = np.asarray(node.get(key)).ravel()
    if values.dtype.kind not in "iu" or len(values) not in (1, 2):
        raise NirError(
            f"node '{name}' ({node['type']}): {key}={node.get(key)!r}; needs one or two integers"
        )
    return int(values[0]), int(values[-1])


def _padding(
    name: str,
    node: Mapping[str, Any],
    weight: np.ndarray,
    stride: tuple[int, int],
    dilation: tuple[int, int],
) -> tuple[int, int]:
    given = node.get("padding")
    word = given.decode() if isinstance(given, bytes) else given
    if not isinstance(word, str):
        return _pair(name, node, "padding")
    if word == "valid":
        return 0, 0
    if word == "same":
        reach = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        if stride != (1, 1) or any(r % 2 for r in reach):
            raise NirError(
                f"node '{name}' (Conv2d): padding 'same' needs stride 1 and odd kernels here"
            )
        return reach[0] // 2, reach[1] // 2
    raise NirError(f"node '{name}' (Conv2d): padding {word!r}; needs numbers, 'same' or 'valid'")


def _to_ours(values: np.ndarray, shape: tuple[int, ...], order: np.ndarray) -> np.ndarray:
    if values.size == 1:
        return np.asarray(float(values.ravel()[0]))
    found = np.empty(len(order))
    found[order] = values.ravel()
    return found.reshape(shape)
