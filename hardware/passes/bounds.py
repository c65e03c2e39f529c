"""How large the accumulated input of a population can get: the proof that nothing overflows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from hardware.errors import GraphError
from hardware.ir.arithmetic import accumulation_limit, shift
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import GATE_ROLES, LIF, Input, Population, is_graded, size
from hardware.ir.operators import make_operator
from hardware.ir.synapses import AnySynapse, Conv2d, Expert, Sparse

Bounds = tuple[np.ndarray, np.ndarray]  # (lowest, highest), each (n,)


def message_bounds(population: Population, current: Bounds | None, *, fixed: bool) -> Bounds:
    """Lowest and highest message that each neuron of `population` can send.

    Args:
        current: bounds of the accumulated input, needed for relays.
        fixed: integers of a fixed-point graph instead of real units.
    """
    n = int(np.prod(population.shape))
    if isinstance(population, Input) and population.kind == "graded":
        top = 2 ** (population.bits - 1) - 1 if fixed else population.limit
        return np.full(n, -top), np.full(n, top)
    if isinstance(population, Input) and population.kind == "constant":
        return np.ones(n), np.ones(n)
    if is_graded(population):
        assert current is not None
        return current
    return np.zeros(n), np.ones(n)


def current_bounds(
    graph: SpikeGraph,
    name: str,
    incoming: Sequence[AnySynapse],
    messages: Mapping[str, Bounds],
    *,
    fixed: bool,
) -> Bounds:
    """Bounds of the accumulated input of a population, each (n,).

    Signs are kept apart, and of synapses that belong to experts of one router only the K largest
    contributions count, since no more than K of its experts carry spikes at a step.
    """
    n = size(graph.populations[name])
    low, high = np.zeros(n), np.zeros(n)
    experts: dict[str, dict[int, list[np.ndarray]]] = {}
    for synapse in incoming:
        lowest, highest = _synapse_bounds(graph, synapse, messages[synapse.source])
        if synapse.expert is None:
            low, high = low + lowest, high + highest
        else:
            router, index = synapse.expert
            sums = experts.setdefault(router, {}).setdefault(index, [np.zeros(n), np.zeros(n)])
            sums[0] = sums[0] + lowest
            sums[1] = sums[1] + highest
    for router, by_index in experts.items():
        active = graph.gate_limits[router]
        lowest = np.sort(np.stack([np.minimum(s[0], 0) for s in by_index.values()]), axis=0)
        highest = np.sort(np.stack([np.maximum(s[1], 0) for s in by_index.values()]), axis=0)
        low, high = low + lowest[:active].sum(axis=0), high + highest[::-1][:active].sum(axis=0)
    return low, high


def _synapse_bounds(graph: SpikeGraph, synapse: AnySynapse, sent: Bounds) -> Bounds:
    below, above = (b.astype(np.float64)[None] for b in sent)
    positive, negative = (
        make_operator(graph, replace(synapse, weight=part, exponent=0), np.dtype(np.float64))
        for part in (np.maximum(synapse.weight, 0), np.minimum(synapse.weight, 0))
    )
    lowest = positive(below) + negative(above)
    highest = positive(above) + negative(below)
    return shift(lowest[0], synapse.exponent), shift(highest[0], synapse.exponent)


def largest(bounds: Bounds) -> float:
    """Largest magnitude within the bounds."""
    return float(max(np.abs(bounds[0]).max(initial=0.0), np.abs(bounds[1]).max(initial=0.0)))


def population_bounds(
    graph: SpikeGraph,
    name: str,
    incoming: Sequence[AnySynapse],
    messages: Mapping[str, Bounds],
    *,
    fixed: bool,
) -> Bounds:
    """Bounds of the accumulated input of one population; its own messages, if it loops, are spikes.

    Args:
        incoming: its synapses, with the weights to count.
        messages: bounds of what each source sends.
    """
    population = graph.populations[name]
    known = dict(messages)
    if any(s.source == name for s in incoming):
        if not isinstance(population, LIF):
            raise GraphError(f"relay '{name}' has a loop onto itself: its sum has no bound")
        known[name] = message_bounds(population, None, fixed=fixed)
    return current_bounds(graph, name, trusted_marks(graph, incoming), known, fixed=fixed)


def check_bounds(graph: SpikeGraph) -> None:
    """GraphError if a population of a fixed-point graph could accumulate more than Loihi's range."""
    messages: dict[str, Bounds] = {}
    for name in graph.order:
        population = graph.populations[name]
        bounds = population_bounds(graph, name, graph.incoming(name), messages, fixed=True)
        limit = accumulation_limit(population)
        if largest(bounds) > limit:
            raise GraphError(
                f"population '{name}': its accumulated input may reach {largest(bounds):,.0f}, beyond "
                f"+-{limit:,}, where Lava's state would wrap; use smaller weights"
            )
        messages[name] = message_bounds(population, bounds, fixed=True)


def trusted_marks(graph: SpikeGraph, incoming: Sequence[AnySynapse]) -> list[AnySynapse]:
    """The synapses, without the `expert` mark where the graph does not show that it is true.

    It is true of experts behind gates of their own, all of one population, which keeps the limit,
    token by token (a sum over tokens may hear another expert from each).
    """
    gates = [s.expert and _gate_before(graph, s, s.expert) for s in incoming]
    found: dict[str, set[str]] = {}
    for synapse, gate in zip(incoming, gates, strict=True):
        if synapse.expert is not None and gate is not None:
            found.setdefault(synapse.expert[0], set()).add(gate)
    trusted = []
    for synapse, gate in zip(incoming, gates, strict=True):
        if synapse.expert is not None:
            router = synapse.expert[0]
            if gate is None or len(found[router]) > 1 or not _keeps_limit(graph, gate, router):
                synapse = replace(synapse, expert=None)
        trusted.append(synapse)
    return trusted


def _gate_before(graph: SpikeGraph, synapse: AnySynapse, expert: Expert) -> str | None:
    """The gates that keep the source silent while that of the expert is closed; None if none do."""
    gate = _silencing_gate(graph, synapse, expert)
    if gate is None or _tokens(graph, gate) == 1 or _is_token_wise(graph, synapse):
        return gate
    return None


def _silencing_gate(graph: SpikeGraph, synapse: AnySynapse, expert: Expert) -> str | None:
    source = graph.populations[synapse.source]
    if not isinstance(source, LIF):
        return None
    if source.role in GATE_ROLES:
        return source.name if _reads_only(graph, synapse, expert[1]) else None
    if np.any(source.bias > 0):
        return None
    incoming = graph.incoming(source.name)
    if any(s.source == source.name for s in incoming):  # its own spikes may keep it going
        return None
    if source.role == "and":
        gates = [s for s in incoming if graph.populations[s.source].role in GATE_ROLES]
        own = [g for s in gates if (g := _gate_before(graph, s, expert)) is not None]
        return own[0] if own and len(incoming) == 2 else None
    before = {_gate_before(graph, s, expert) if s.expert == expert else None for s in incoming}
    return before.pop() if len(before) == 1 else None


def _keeps_limit(graph: SpikeGraph, gate: str, router: str) -> bool:
    """Whether no more gates of a token can be open than the router's limit.

    Gates of a contest do by their number of winners; every threshold can be passed at once.
    """
    population = graph.populations[gate]
    if population.role == "latch":
        decided = {s.source for s in graph.incoming(gate)} - {gate}
        sources = {s.source for name in decided for s in graph.incoming(name)}
        held = [n for n in sources if graph.populations[n].role in ("gate", "threshold")]
        return bool(held) and all(_keeps_limit(graph, name, router) for name in held)
    return population.role != "threshold" or graph.gate_limits[router] >= population.shape[-1]


def _reads_only(graph: SpikeGraph, synapse: AnySynapse, expert: int) -> bool:
    """Whether a synapse from gates (..., E) uses the gates of one expert alone."""
    columns = np.unique(_connections(graph, synapse)[1])
    return bool(np.all(columns % graph.populations[synapse.source].shape[-1] == expert))


def _tokens(graph: SpikeGraph, name: str) -> int:
    return math.prod(graph.populations[name].shape[:-1])


def _is_token_wise(graph: SpikeGraph, synapse: AnySynapse) -> bool:
    """Whether each neuron of a map reads its own position alone."""
    if isinstance(synapse, Conv2d):
        single = synapse.weight.shape[2:] == (1, 1)
        return single and synapse.stride == (1, 1) and synapse.padding == (0, 0)
    rows, columns = _connections(graph, synapse)
    target, source = (graph.populations[n].shape[-1] for n in (synapse.target, synapse.source))
    return bool(np.all(rows // target == columns // source))


def _connections(graph: SpikeGraph, synapse: AnySynapse) -> tuple[np.ndarray, np.ndarray]:
    """(neurons of the target, neurons of the source) of all weights that are not zero."""
    if isinstance(synapse, Sparse):
        used = synapse.weight != 0
        return synapse.rows[used], synapse.columns[used]
    matrix = graph.matrix(synapse).tocoo()
    return matrix.row, matrix.col
