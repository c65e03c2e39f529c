"""How large the accumulated input of a population can get: the proof that nothing overflows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from hardware.errors import GraphError
from hardware.ir.arithmetic import accumulation_limit, shift
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import LIF, Input, Population, is_graded, size
from hardware.ir.operators import make_operator
from hardware.ir.synapses import AnySynapse
from hardware.passes.gating import Gating

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
    gating: Gating,
    name: str,
    incoming: Sequence[AnySynapse],
    messages: Mapping[str, Bounds],
    *,
    fixed: bool,
) -> Bounds:
    """Bounds of the accumulated input of one population; its own messages, if it loops, are spikes.

    Args:
        gating: of the graph that the population belongs to.
        incoming: its synapses, with the weights to count.
        messages: bounds of what each source sends.
    """
    graph = gating.graph
    population = graph.populations[name]
    if any(s.source == name for s in incoming):
        if not isinstance(population, LIF):
            raise GraphError(f"relay '{name}' has a loop onto itself: its sum has no bound")
        messages = {**messages, name: message_bounds(population, None, fixed=fixed)}
    return current_bounds(graph, name, gating.trusted_marks(incoming), messages, fixed=fixed)


def check_bounds(graph: SpikeGraph) -> None:
    """GraphError if a population of a fixed-point graph could accumulate more than Loihi's range."""
    gating = Gating(graph)
    messages: dict[str, Bounds] = {}
    for name in graph.order:
        population = graph.populations[name]
        bounds = population_bounds(gating, name, graph.incoming(name), messages, fixed=True)
        limit = accumulation_limit(population)
        if largest(bounds) > limit:
            raise GraphError(
                f"population '{name}': its accumulated input may reach {largest(bounds):,.0f}, beyond "
                f"+-{limit:,}, where Lava's state would wrap; use smaller weights"
            )
        messages[name] = message_bounds(population, bounds, fixed=True)
