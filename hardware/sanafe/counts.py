"""What SANA-FE charges, counted from our own spikes: no number here comes from SANA-FE.

Counts are over all hardware steps, those in which the pipeline fills and empties included unless asked
otherwise, of the graph as it is placed, shift registers included.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from hardware.ir.arithmetic import lif_step, shift
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import LIF, Input, Readout, size
from hardware.ir.synapses import AnySynapse
from hardware.sanafe.placement import (
    KINDS,
    Placement,
    SynapseKind,
    part_on_chip,
    router_position,
)


def no_synapses() -> dict[SynapseKind, int]:
    """Zero of each kind."""
    return dict.fromkeys(KINDS, 0)


@dataclass(frozen=True, kw_only=True)
class ChipEvents:
    """Events of one run on SANA-FE's Loihi 1, over all samples.

    Attributes:
        synapses_reached: by kind, connections (weight not zero) of each neuron that spiked.
        soma_updates: neurons times hardware steps, inputs left out.
        soma_changes: updates that find a membrane other than zero, a message, or a bias.
        late_clears: of these, updates that nothing reaches, which only clear what a readout, or a neuron without
            memory at the start of a window, still holds of the step before.
        soma_spikes: spikes of neurons, inputs left out.
        messages: a spike counts once for each core that it reaches, its own included.
        hops_east_west, hops_north_south: routers that messages pass, each message on its own.
    """

    synapses_reached: dict[SynapseKind, int] = field(default_factory=no_synapses)
    soma_updates: int = 0
    soma_changes: int = 0
    late_clears: int = 0
    soma_spikes: int = 0
    messages: int = 0
    hops_east_west: int = 0
    hops_north_south: int = 0

    @property
    def hops(self) -> int:
        """In both directions."""
        return self.hops_east_west + self.hops_north_south

    def __add__(self, other: ChipEvents) -> ChipEvents:
        return ChipEvents(
            synapses_reached={
                kind: count + other.synapses_reached[kind]
                for kind, count in self.synapses_reached.items()
            },
            soma_updates=self.soma_updates + other.soma_updates,
            soma_changes=self.soma_changes + other.soma_changes,
            late_clears=self.late_clears + other.late_clears,
            soma_spikes=self.soma_spikes + other.soma_spikes,
            messages=self.messages + other.messages,
            hops_east_west=self.hops_east_west + other.hops_east_west,
            hops_north_south=self.hops_north_south + other.hops_north_south,
        )


def count_events(
    graph: SpikeGraph, placement: Placement, sent: dict[str, np.ndarray]
) -> ChipEvents:
    """Count the events of a run: `events_by_part`, summed."""
    return sum(events_by_part(graph, placement, sent).values(), ChipEvents())


def events_by_part(
    graph: SpikeGraph,
    placement: Placement,
    sent: dict[str, np.ndarray],
    *,
    in_windows: bool = False,
) -> dict[str, ChipEvents]:
    """Count the events of a run by part of the network.

    Neurons' events and messages belong to the part of the population (`part_on_chip`), synapses to that of
    their target, those of an expert's neurons and gates to the expert.

    Args:
        graph: legalised (`hardware.sanafe.legal`), or as it was before.
        placement: of this graph, or of what it was legalised to.
        sent: what each population sends at each hardware step (`hardware.ir.stream.stream_messages`).
        in_windows: leave out the steps before a population's first sample and after its last.
    """
    steps = max(len(rows) for rows in sent.values())
    length = steps - max(graph.depth.values())
    parts: dict[str, ChipEvents] = {}

    def note(part: str, events: ChipEvents) -> None:
        parts[part] = parts.get(part, ChipEvents()) + events

    for name, population in graph.populations.items():
        part, first = part_on_chip(graph, name), graph.depth[name]
        seen = slice(first, first + length) if in_windows else slice(0, steps)
        if not isinstance(population, Readout):
            rows = sent[name].reshape(steps, -1)[seen]
            fired = np.count_nonzero(rows, axis=0)
            for synapse in graph.outgoing(name):
                reached = int(fired @ np.diff(graph.matrix(synapse).tocsc().indptr))
                kinds = no_synapses()
                kinds[placement.kinds[synapse.target]] = reached
                note(part_of_synapse(graph, synapse), ChipEvents(synapses_reached=kinds))
            note(part, _messages(graph, placement, name, fired))
        if not isinstance(population, Input):
            changes, clears = _changes(graph, name, sent)
            updates = len(range(steps)[seen]) * size(population)
            note(
                part,
                ChipEvents(
                    soma_updates=updates,
                    soma_changes=int(changes[seen].sum()),
                    late_clears=int(clears[seen].sum()),
                ),
            )
        if isinstance(population, LIF):
            note(part, ChipEvents(soma_spikes=int(np.count_nonzero(sent[name][seen]))))
    return parts


def part_of_synapse(graph: SpikeGraph, synapse: AnySynapse) -> str:
    """The part that pays for a synapse."""
    target = part_on_chip(graph, synapse.target)
    if synapse.expert is None or target == "registers":
        return target
    return f"experts.{synapse.expert[1]}"


def _messages(graph: SpikeGraph, placement: Placement, name: str, fired: np.ndarray) -> ChipEvents:
    sources, targets = np.nonzero(_cores_reached(graph, placement, name))
    (from_x, from_y), (to_x, to_y) = (
        router_position(cores) for cores in (placement.cores[name][sources], targets)
    )
    return ChipEvents(
        messages=int(fired[sources].sum()),
        hops_east_west=int(fired[sources] @ abs(from_x - to_x)),
        hops_north_south=int(fired[sources] @ abs(from_y - to_y)),
    )


def _cores_reached(graph: SpikeGraph, placement: Placement, name: str) -> np.ndarray:
    """(n, cores) whether a neuron has a connection into a core."""
    reached = np.zeros((size(graph.populations[name]), placement.cores_used), dtype=bool)
    for synapse in graph.outgoing(name):
        matrix = graph.matrix(synapse).tocoo()
        reached[matrix.col, placement.cores[synapse.target][matrix.row]] = True
    return reached


def _changes(
    graph: SpikeGraph, name: str, sent: dict[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """(steps,) updates of a population's neurons that are not idle, and how many of them are late clears."""
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
    carried = np.zeros_like(met)  # v, as the step before left it, is not zero
    late = np.zeros_like(met)
    if isinstance(population, Readout):  # a neuron that forgets at once and never fires
        carried[1:] = (current + bias)[:-1] != 0
        late = carried & ~met
    else:
        assert isinstance(population, LIF)
        v = np.zeros(population.shape, dtype=np.int64)
        for step in range(steps):
            if resets(graph, name, step):
                v = np.zeros_like(v)
            carried[step] = v.ravel() != 0
            _, _, v = lif_step(population, v, current[step].reshape(population.shape), fixed=True)
        if population.membrane_decay == 0:
            begins = (np.arange(steps) - graph.depth[name]) % graph.time_steps == 0
            late[begins] = (carried & ~met)[begins]
    return (met | carried).sum(axis=1), late.sum(axis=1)


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
