"""What SANA-FE charges, counted from our own spikes: no number here comes from SANA-FE.

Counts are over all hardware steps, those in which the pipeline fills and empties included, of the graph as it
is placed, shift registers included.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hardware.ir.arithmetic import lif_step, shift
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import LIF, Input, Readout, size
from hardware.sanafe.placement import KINDS, Placement, SynapseKind, router_position


@dataclass(frozen=True, kw_only=True)
class ChipEvents:
    """Events of one run on SANA-FE's Loihi 1, over all samples.

    Attributes:
        synapses_reached: by kind, connections (weight not zero) of each neuron that spiked.
        soma_updates: neurons times hardware steps, inputs left out.
        soma_changes: updates that find a membrane other than zero, a message, or a bias.
        soma_spikes: spikes of neurons, inputs left out.
        messages: a spike counts once for each core that it reaches, its own included.
        hops_east_west, hops_north_south: routers that messages pass, each message on its own.
    """

    synapses_reached: dict[SynapseKind, int]
    soma_updates: int
    soma_changes: int
    soma_spikes: int
    messages: int
    hops_east_west: int
    hops_north_south: int

    @property
    def hops(self) -> int:
        """In both directions."""
        return self.hops_east_west + self.hops_north_south


def count_events(
    graph: SpikeGraph, placement: Placement, sent: dict[str, np.ndarray]
) -> ChipEvents:
    """Count the events of a run.

    Args:
        graph: legalised (`hardware.sanafe.legal`).
        placement: of this graph.
        sent: what each population sends at each hardware step (`hardware.ir.stream.stream_messages`).
    """
    reached: dict[SynapseKind, int] = dict.fromkeys(KINDS, 0)
    somas = changes = spikes = messages = east_west = north_south = 0
    for name, population in graph.populations.items():
        if not isinstance(population, Readout):
            flat = sent[name].reshape(len(sent[name]), -1)
            fired = np.count_nonzero(flat, axis=0)
            for synapse in graph.outgoing(name):
                fan_out = np.diff(graph.matrix(synapse).tocsc().indptr)
                reached[placement.kinds[synapse.target]] += int(fired @ fan_out)
            sources, targets = np.nonzero(_cores_reached(graph, placement, name))
            (from_x, from_y), (to_x, to_y) = (
                router_position(cores) for cores in (placement.cores[name][sources], targets)
            )
            messages += int(fired[sources].sum())
            east_west += int(fired[sources] @ abs(from_x - to_x))
            north_south += int(fired[sources] @ abs(from_y - to_y))
        if not isinstance(population, Input):
            somas += len(sent[name]) * size(population)
            changes += _count_changes(graph, name, sent)
        if isinstance(population, LIF):
            spikes += int(np.count_nonzero(sent[name]))
    return ChipEvents(
        synapses_reached=reached,
        soma_updates=somas,
        soma_changes=changes,
        soma_spikes=spikes,
        messages=messages,
        hops_east_west=east_west,
        hops_north_south=north_south,
    )


def _cores_reached(graph: SpikeGraph, placement: Placement, name: str) -> np.ndarray:
    """(n, cores) whether a neuron has a connection into a core."""
    reached = np.zeros((size(graph.populations[name]), placement.cores_used), dtype=bool)
    for synapse in graph.outgoing(name):
        matrix = graph.matrix(synapse).tocoo()
        reached[matrix.col, placement.cores[synapse.target][matrix.row]] = True
    return reached


def _count_changes(graph: SpikeGraph, name: str, sent: dict[str, np.ndarray]) -> int:
    """Updates of a population's neurons that are not idle."""
    population, steps = graph.populations[name], len(sent[name])
    current = np.zeros((steps, size(population)), dtype=np.int64)
    met = np.zeros(current.shape, dtype=bool)
    for synapse in graph.incoming(name):
        matrix, delay = graph.matrix(synapse).astype(np.int64), synapse.delay
        rows = sent[synapse.source].reshape(steps, -1)[: steps - delay].T.astype(np.int64)
        current[delay:] += shift(np.asarray(matrix @ rows), synapse.exponent).T
        met[delay:] |= np.asarray(abs(matrix).sign() @ rows).T > 0
    bias = np.broadcast_to(getattr(population, "bias", 0), population.shape).ravel()
    met |= bias != 0
    if isinstance(population, Readout):  # a neuron that forgets at once and never fires
        before = np.zeros_like(current)
        before[1:] = (current + bias)[:-1]
        return int(np.count_nonzero(met | (before != 0)))
    assert isinstance(population, LIF)
    v, changes = np.zeros(population.shape, dtype=np.int64), 0
    for step in range(steps):
        if resets(graph, name, step):
            v = np.zeros_like(v)
        changes += int(np.count_nonzero(met[step] | (v.ravel() != 0)))
        _, _, v = lif_step(population, v, current[step].reshape(population.shape), fixed=True)
    return changes


def resets(graph: SpikeGraph, name: str, step: int) -> bool:
    """Whether a population's membranes are set to zero before a hardware step: a window begins.

    Neurons with decay 0 forget by themselves and are left alone.
    """
    population = graph.populations[name]
    return (
        isinstance(population, LIF)
        and population.membrane_decay > 0
        and (step - graph.depth[name]) % graph.time_steps == 0
    )
