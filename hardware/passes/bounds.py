"""How large the accumulated input of a population can get: the proof that nothing overflows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.sparse import csr_matrix

from hardware.ir.arithmetic import shift
from hardware.ir.nodes import Input, Population, is_graded
from hardware.ir.synapses import AnySynapse

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
    n: int,
    incoming: Sequence[tuple[AnySynapse, csr_matrix]],
    messages: Mapping[str, Bounds],
    gate_limits: Mapping[str, int],
    *,
    fixed: bool,
) -> Bounds:
    """Bounds of the accumulated input of a population of `n` neurons.

    Signs are kept apart, and of synapses that belong to experts of one router only the K largest
    contributions count, since no more than K of its experts carry spikes at a step.
    """
    low, high = np.zeros(n), np.zeros(n)
    experts: dict[str, dict[int, list[np.ndarray]]] = {}
    for synapse, matrix in incoming:
        below, above = messages[synapse.source]
        positive, negative = matrix.maximum(0), matrix.minimum(0)
        lowest = positive @ below + negative @ above
        highest = positive @ above + negative @ below
        if fixed:
            lowest = shift(lowest.astype(np.int64), synapse.exponent).astype(np.float64)
            highest = shift(highest.astype(np.int64), synapse.exponent).astype(np.float64)
        if synapse.expert is None:
            low, high = low + lowest, high + highest
        else:
            router, index = synapse.expert
            sums = experts.setdefault(router, {}).setdefault(index, [np.zeros(n), np.zeros(n)])
            sums[0] = sums[0] + lowest
            sums[1] = sums[1] + highest
    for router, by_index in experts.items():
        active = gate_limits[router]
        lowest = np.sort(np.stack([np.minimum(s[0], 0) for s in by_index.values()]), axis=0)
        highest = np.sort(np.stack([np.maximum(s[1], 0) for s in by_index.values()]), axis=0)
        low, high = low + lowest[:active].sum(axis=0), high + highest[::-1][:active].sum(axis=0)
    return low, high


def largest(bounds: Bounds) -> float:
    """Largest magnitude within the bounds."""
    return float(max(np.abs(bounds[0]).max(initial=0.0), np.abs(bounds[1]).max(initial=0.0)))
