"""NIR to `SpikeGraph`: from any framework onto Lava.

NIR's neurons obey differential equations; they become ours by forward Euler steps of `dt`, as snnTorch
writes them: decay = 1 - dt / tau, the input is weighted by r dt / tau. What has another meaning than
our neuron is refused with the node's name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from hardware.errors import GraphError, NirError
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import LIF, Input, Population, Readout, Relay
from hardware.nir.connections import (
    Import,
    Signal,
    connect,
    connect_directly,
    connect_through,
    output_shape,
    same_shape,
)
from hardware.nir.export import NOTES
from hardware.nir.flat import flatten_graph
from hardware.nir.layout import DT, nir_order, our_shape
from hardware.nir.node_values import (
    check_sizes,
    parameter,
    shape_of,
    to_ours,
)
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
    own = own if isinstance(own, Mapping) else {}
    own = {name: note for name, note in own.items() if isinstance(note, Mapping)}
    work = Import(flatten_graph(values), step, own)
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


def _import_node(work: Import, name: str, input_limit: float) -> None:
    node, kind = work.flat.nodes[name], work.flat.nodes[name]["type"]
    if kind in REFUSED:
        raise NirError(f"node '{name}' ({kind}): {REFUSED[kind]}")
    before = [work.signals[source] for source in work.flat.before[name]]
    if kind == "Input":
        shape = shape_of(name, node, "shape")
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


def _add(work: Import, name: str, population: Population, shape: tuple[int, ...]) -> None:
    """Keep a population; its signal in NIR's order."""
    work.populations[name] = population
    work.signals[name] = Signal(name, shape, nir_order(our_shape(shape)))


def _noted_shape(work: Import, name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Our shape of a population: as noted where that only regroups a vector, else from NIR's."""
    noted = work.notes.get(name, {}).get("shape")
    if isinstance(noted, list) and all(type(n) is int and n > 0 for n in noted) and noted:
        same_order = len(noted) != 3 or our_shape(shape) == tuple(noted)
        if math.prod(noted) == math.prod(shape) and same_order:
            return tuple(noted)
    return our_shape(shape)


def _input(work: Import, name: str, shape: tuple[int, ...], limit: float) -> Input:
    notes = work.notes.get(name, {})
    return Input(
        name=name,
        shape=_noted_shape(work, name, shape),
        kind=notes.get("kind", "graded"),
        limit=float(notes.get("limit", limit)),
        bits=int(notes.get("bits", 8)),
        clock_step=int(notes.get("clock_step", 0)),
    )


def _import_output(work: Import, name: str, node: Mapping[str, Any], before: list[Signal]) -> None:
    if len(before) == 1 and isinstance(work.populations.get(before[0].population), Readout):
        work.signals[name] = before[0]  # our own export: the readout is there already
        return
    shape = same_shape(name, before)
    work.populations[name] = Readout(name=name, shape=our_shape(shape))
    work.signals[name] = Signal(name, shape, nir_order(our_shape(shape)))
    connect(work, name, 1.0)


def _import_view(work: Import, name: str, node: Mapping[str, Any], before: list[Signal]) -> None:
    if len(before) != 1:
        raise NirError(f"node '{name}' (Flatten) has {len(before)} inputs; it needs one")
    signal = before[0]
    start, end = int(node.get("start_dim", 1)), int(node.get("end_dim", -1))
    if start not in (0, 1) or end not in (-1, len(signal.shape) - 1, len(signal.shape)):
        raise NirError(
            f"node '{name}' (Flatten) flattens dimensions {start} to {end}; only all of them can be"
        )
    # start_dim counts the batch in some frameworks and not in others: all dimensions in either case
    work.signals[name] = Signal(signal.population, (math.prod(signal.shape),), signal.order)


def _import_neurons(
    work: Import, name: str, node: Mapping[str, Any], kind: str, before: list[Signal]
) -> None:
    inner = same_shape(name, before)
    check_sizes(name, node, math.prod(inner))
    threshold = parameter(name, node, "threshold" if kind == "Threshold" else "v_threshold")
    if kind != "Threshold" and np.any(parameter(name, node, "v_reset", 0.0)):
        raise NirError(f"node '{name}' ({kind}): v_reset must be 0, as our neurons reset to zero")
    gain: np.ndarray = np.ones(())
    leak: np.ndarray = np.zeros(())
    decay = {"Threshold": 0.0, "IF": 1.0}.get(kind, 0.0)
    if kind == "IF":
        gain = parameter(name, node, "r") * work.dt
    if kind == "LIF":
        tau = parameter(name, node, "tau")
        if not (tau > 0).all():
            raise NirError(f"node '{name}' (LIF): tau must be positive")
        share = work.dt / tau
        decay = _decay(name, 1.0 - share, work.dt)
        gain = parameter(name, node, "r") * share
        leak = parameter(name, node, "v_leak", 0.0) * share
    gain = np.where(abs(gain - 1.0) < ROUNDING, 1.0, gain)
    shape = _noted_shape(work, name, inner)
    notes = work.notes.get(name, {})
    order = nir_order(our_shape(inner))
    population = LIF(
        name=name,
        shape=shape,
        membrane_decay=decay,
        threshold=to_ours(threshold, shape, order),
        bias=to_ours(leak, shape, order),
        scale_group=str(notes.get("scale_group", "")),
        role=str(notes.get("role", "neuron")),
    )
    work.populations[name] = population
    work.signals[name] = Signal(name, inner, order)
    work.gains[name] = gain
    connect(work, name, gain)


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


def _import_linear(work: Import, name: str, before: list[Signal]) -> None:
    """Nothing yet if a population takes it alone; a relay where its sum must be kept."""
    followers = work.flat.after[name]
    after = [work.flat.nodes[n]["type"] for n in followers]
    loops_back = any(source == name for _, source in work.flat.loops)
    into_population = len(after) == 1 and (
        after[0] in (*NEURONS, "Output") or _is_identity(work, followers[0])
    )
    if into_population and not _is_identity(work, name):
        shape = output_shape(work, name)
        work.signals[name] = Signal("", shape, nir_order(our_shape(shape)))
        return
    if loops_back:
        shape = output_shape(work, name) if before else ()
        work.signals[name] = Signal("", shape, nir_order(our_shape(shape)))
        return
    identity = _is_identity(work, name)
    shape = same_shape(name, before) if identity else output_shape(work, name)
    notes = work.notes.get(name, {})
    ours = _noted_shape(work, name, shape)
    if notes.get("role") == "readout" and after == ["Output"]:
        work.populations[name] = Readout(name=name, shape=ours)
    else:
        work.populations[name] = Relay(
            name=name, shape=ours, scale_group=str(notes.get("scale_group", ""))
        )
    work.signals[name] = Signal(name, shape, nir_order(our_shape(shape)))
    if identity:
        connect(work, name, 1.0)
    else:
        connect_through(work, name, name, np.ones(()))


def _is_identity(work: Import, name: str) -> bool:
    """A Scale by 1 only sums what comes in: a population of its own."""
    node = work.flat.nodes[name]
    return (
        node["type"] == "Scale"
        and bool((parameter(name, node, "scale") == 1.0).all())
        and (len(work.flat.before[name]) != 1 or name in work.notes)
    )


def _import_loop(work: Import, name: str, source: str) -> None:
    """A connection back: `source` feeds `name`, which comes before it."""
    if name not in work.populations:
        raise NirError(f"node '{name}': a connection back must lead to neurons")
    signal, gain = work.signals[source], work.gains.get(name, np.ones(()))
    if signal.population:
        connect_directly(work, signal, name, gain)
        return
    connect_through(work, source, name, gain)
