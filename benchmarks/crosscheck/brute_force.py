"""What a run executed, counted spike by spike from lists of connections: slow, and sharing nothing but the graph.

`hardware.energy.count_operations` multiplies spikes of each neuron with its fan-out, which it derives from
kernels. Here every spike walks its list of connections instead.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from hardware.energy import Operation
from hardware.ir.arithmetic import lif_step, shift
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import LIF, Input, Readout, is_graded, size
from hardware.ir.synapses import AnySynapse, Conv2d, Dense
from hardware.loihi.layout import CoreLayout
from hardware.trace import SpikeTrace

Connections = list[tuple[np.ndarray, np.ndarray]]  # per source neuron: targets, weights


def count_by_spikes(
    graph: SpikeGraph, trace: SpikeTrace, layout: CoreLayout
) -> dict[Operation, int]:
    """Every operation of a run of a graph in fixed point without graded spikes, over all samples.

    Raises:
        ValueError: a population other than the readout sends numbers.
    """
    counts: Counter[Operation] = Counter()
    shape = (trace.samples, graph.time_steps)
    flat = {name: spikes.reshape(*shape, -1) for name, spikes in trace.spikes.items()}
    current = {n: np.zeros((*shape, size(p)), np.int64) for n, p in graph.populations.items()}
    reached = {n: np.zeros((*shape, size(p)), bool) for n, p in graph.populations.items()}
    core_of = cores_of_neurons(graph, layout)
    for name, population in graph.populations.items():
        if isinstance(population, Readout):
            continue
        if is_graded(population):
            raise ValueError(f"population '{name}' sends numbers; lower with binary spikes only")
        outgoing = [(s, connections(graph, s)) for s in graph.outgoing(name)]
        for sample, step, neuron in zip(*np.nonzero(flat[name]), strict=True):
            counts[Operation.SPIKE] += 1
            counts[Operation.NEURON_SPIKE] += isinstance(population, LIF)
            cores: set[int] = set()
            for synapse, lists in outgoing:
                targets, weights = lists[neuron]
                counts[Operation.ACCUMULATE] += len(targets)
                counts[kind_of(synapse)] += len(targets)
                late = synapse.delay if synapse.target == name else 0
                at = (sample, (step + late) % graph.time_steps)
                reached[synapse.target][at][targets] = True
                # The graph's exponent is applied to each weight, which is exact as long as nothing is floored.
                current[synapse.target][at][targets] += shift(weights, synapse.exponent)
                cores |= set(core_of[synapse.target][targets].tolist())
            own = core_of[name][neuron]
            for core in cores:
                counts[Operation.CORE_MESSAGE] += 1
                counts[Operation.HOP_EAST_WEST] += abs(
                    int(layout.column[own] - layout.column[core])
                )
                counts[Operation.HOP_NORTH_SOUTH] += abs(int(layout.row[own] - layout.row[core]))
    counts[Operation.WEIGHT_READ] = counts[Operation.ACCUMULATE]
    counts[Operation.EVENT_UPDATE] = counts[Operation.ACCUMULATE]
    for population in graph.populations.values():
        if not isinstance(population, Input):
            _count_updates(counts, population, reached, current)
    return dict(counts)


def connections(graph: SpikeGraph, synapse: AnySynapse) -> Connections:
    """The connections of each source neuron whose weight is not zero."""
    matrix = graph.matrix(synapse).tocsc()
    matrix.eliminate_zeros()
    spans = zip(matrix.indptr, matrix.indptr[1:], strict=False)
    return [(matrix.indices[a:b], matrix.data[a:b].astype(np.int64)) for a, b in spans]


def cores_of_neurons(graph: SpikeGraph, layout: CoreLayout) -> dict[str, np.ndarray]:
    """(n,) the core of each neuron, by population."""
    found = {n: np.zeros(p.shape, np.int64) for n, p in graph.populations.items()}
    for block, core in zip(layout.blocks, layout.core.tolist(), strict=True):
        found[block.population][block.slices] = core
    return {name: cores.ravel() for name, cores in found.items()}


def kind_of(synapse: AnySynapse) -> Operation:
    """An accumulate through this kind of synapse."""
    if isinstance(synapse, Dense):
        return Operation.ACCUMULATE_DENSE
    is_kernel = isinstance(synapse, Conv2d)
    return Operation.ACCUMULATE_CONVOLUTION if is_kernel else Operation.ACCUMULATE_SPARSE


def _count_updates(
    counts: Counter[Operation],
    population: LIF | Readout,
    reached: dict[str, np.ndarray],
    current: dict[str, np.ndarray],
) -> None:
    bias = np.broadcast_to(population.bias, population.shape).ravel()
    active = reached[population.name] | (bias != 0)
    updates, busy = active.size, int(active.sum())
    if isinstance(population, Readout):
        counts[Operation.RELAY_UPDATE_ACTIVE] += busy
        counts[Operation.RELAY_UPDATE_IDLE] += updates - busy
        counts[Operation.STATE_CHANGE] += busy
        return
    counts[Operation.NEURON_UPDATE_ACTIVE] += busy
    counts[Operation.NEURON_UPDATE_IDLE] += updates - busy
    if population.membrane_decay > 0:
        counts[Operation.MEMBRANE_READ] += updates
        counts[Operation.MEMBRANE_WRITE] += updates
    for sample, rows in enumerate(current[population.name]):
        v = np.zeros(population.shape, dtype=np.int64)
        for step, arriving in enumerate(rows):
            changed = active[sample, step] | (v.ravel() != 0)
            counts[Operation.STATE_CHANGE] += int(changed.sum())
            _, _, v = lif_step(population, v, arriving.reshape(population.shape), fixed=True)
