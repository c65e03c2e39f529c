"""Which blocks send to which: axons and messages between cores."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix

from hardware.ir.graph import SpikeGraph
from hardware.ir.synapses import AnySynapse, Dense, Sparse
from hardware.loihi.blocks import Grid
from hardware.loihi.chips import Chip
from hardware.loihi.demands import receptive_spans
from hardware.loihi.links import Links, links_of_all, links_of_boxes, links_of_list

#: By number of the synapse: neurons of the target and of the source of every single connection.
Connections = dict[int, tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True)
class SynapseEdges:
    """The links of one synapse; `first_source` and `first_target` number the first blocks of its ends."""

    synapse: int
    links: Links
    first_source: int
    first_target: int
    shared: bool

    @property
    def source(self) -> np.ndarray:
        """(links,) numbers of blocks."""
        return self.first_source + self.links.source

    @property
    def target(self) -> np.ndarray:
        """(links,) numbers of blocks."""
        return self.first_target + self.links.target


@dataclass(frozen=True)
class Edges:
    """Connections between blocks, by synapse.

    A link takes an outgoing axon of the source block (an incoming one of the target) for each neuron that
    sends, or one for all of them if the synapse's axons are shared.
    """

    of_synapses: tuple[SynapseEdges, ...]

    def __len__(self) -> int:
        return sum(len(one.links.source) for one in self.of_synapses)

    def out_axons(self, blocks: int) -> list[int]:
        """Of each block."""
        found = np.zeros(blocks, dtype=np.int64)
        for one in self.of_synapses:
            axons = None if one.shared else one.links.neurons
            found += np.bincount(one.source, axons, minlength=blocks).astype(np.int64)
        return found.tolist()

    def shared_in_axons(self, blocks: int) -> list[int]:
        """Incoming axons that come from shared ones beyond the one per synapse counted already."""
        more = np.zeros(blocks, dtype=np.int64)
        for one in self.of_synapses:
            if one.shared:
                more += np.maximum(np.bincount(one.target, minlength=blocks) - 1, 0)
        return more.tolist()


def find_connections(graph: SpikeGraph) -> Connections:
    """Of the synapses that are lists."""
    found: Connections = {}
    for number, synapse in enumerate(graph.synapses):
        if isinstance(synapse, Sparse):
            matrix = graph.matrix(synapse).tocoo()
            found[number] = matrix.row.astype(np.int64), matrix.col.astype(np.int64)
    return found


def find_edges(
    graph: SpikeGraph, chip: Chip, grids: Mapping[str, Grid], connections: Connections
) -> Edges:
    """All connections between the blocks of `grids`.

    Args:
        connections: `find_connections` of the graph.
    """
    first = first_blocks(grids)
    return Edges(
        tuple(
            SynapseEdges(
                synapse=number,
                links=_links(graph, grids, number, synapse, connections),
                first_source=first[synapse.source],
                first_target=first[synapse.target],
                shared=not isinstance(synapse, (Dense, Sparse)) and not chip.discrete_axons,
            )
            for number, synapse in enumerate(graph.synapses)
        )
    )


def first_blocks(grids: Mapping[str, Grid]) -> dict[str, int]:
    """Number of each population's first block."""
    starts = itertools.accumulate((len(grid) for grid in grids.values()), initial=0)
    return dict(zip(grids, starts, strict=False))


def traffic_between(
    graph: SpikeGraph,
    edges: Edges,
    core_of: np.ndarray,
    sent: Mapping[str, np.ndarray],
) -> np.ndarray:
    """(cores, cores) messages per sample from a core to another.

    A neuron's message goes once to each block that it reaches through a synapse.

    Args:
        core_of: (blocks,) the core of each block.
        sent: by population, messages per sample of each neuron, in the population's shape.
    """
    cores = int(core_of.max(initial=-1)) + 1
    messages = [
        one.links.sums(sent[graph.synapses[one.synapse].source]) for one in edges.of_synapses
    ]
    source = [core_of[one.source] for one in edges.of_synapses]
    target = [core_of[one.target] for one in edges.of_synapses]
    pairs = np.concatenate(source), np.concatenate(target)
    return coo_matrix((np.concatenate(messages), pairs), shape=(cores, cores)).toarray()


def _links(
    graph: SpikeGraph,
    grids: Mapping[str, Grid],
    number: int,
    synapse: AnySynapse,
    connections: Connections,
) -> Links:
    sources, targets = grids[synapse.source], grids[synapse.target]
    if isinstance(synapse, Sparse):
        return links_of_list(sources, targets, *connections[number])
    if isinstance(synapse, Dense):
        return links_of_all(sources, targets)
    spans = receptive_spans(graph, synapse, targets)
    return links_of_boxes(sources, targets, spans)
