"""Which blocks send to which: axons and messages between cores."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from hardware.ir.graph import SpikeGraph
from hardware.ir.synapses import AnySynapse, Conv2d, Dense, Sparse
from hardware.loihi.blocks import Grid
from hardware.loihi.chips import Chip
from hardware.loihi.demands import receptive_box


@dataclass(frozen=True)
class Link:
    """Of one (synapse, source block, target block): which neurons of the source population send."""

    source: int
    target: int
    neurons: np.ndarray | tuple[slice, ...]
    count: int
    shared: bool
    synapse: int


@dataclass(frozen=True)
class Edges:
    """Connections between blocks, one entry per (synapse, source block, target block).

    Attributes:
        source, target: numbers of blocks.
        neurons: how many neurons of the source reach into the target.
        axons: outgoing axons that this takes of the source (incoming ones of the target).
        shared: whether those neurons share one axon.
        synapse: number of the synapse in the graph.
        links: the same, entry by entry, with the neurons that send.
    """

    source: np.ndarray
    target: np.ndarray
    neurons: np.ndarray
    axons: np.ndarray
    shared: np.ndarray
    synapse: np.ndarray
    links: tuple[Link, ...]

    def out_axons(self, blocks: int) -> list[int]:
        """Of each block."""
        return np.bincount(self.source, self.axons, minlength=blocks).astype(int).tolist()

    def shared_in_axons(self, blocks: int) -> list[int]:
        """Incoming axons that come from shared ones beyond the one per synapse counted already."""
        more = np.zeros(blocks, dtype=np.int64)
        kept = self.shared
        pairs = np.stack([self.target[kept], self.synapse[kept]])
        unique, counts = np.unique(pairs, axis=1, return_counts=True)
        np.add.at(more, unique[0], counts - 1)
        return more.tolist()


def find_edges(graph: SpikeGraph, chip: Chip, grids: Mapping[str, Grid]) -> Edges:
    """All connections between the blocks of `grids`."""
    first = first_blocks(grids)
    links = [
        link
        for number, synapse in enumerate(graph.synapses)
        for link in _of_synapse(graph, chip, grids, first, number, synapse)
    ]
    rows = [
        (
            link.source,
            link.target,
            link.count,
            1 if link.shared else link.count,
            link.shared,
            link.synapse,
        )
        for link in links
    ]
    table = np.array(rows, dtype=np.int64).reshape(-1, 6)
    source, target, neurons, axons, shared, synapse = table.T
    return Edges(source, target, neurons, axons, shared.astype(bool), synapse, tuple(links))


def first_blocks(grids: Mapping[str, Grid]) -> dict[str, int]:
    """Number of each population's first block."""
    starts = itertools.accumulate((len(grid) for grid in grids.values()), initial=0)
    return dict(zip(grids, starts, strict=False))


def messages_between(
    graph: SpikeGraph, edges: Edges, blocks: int, sent: Mapping[str, np.ndarray]
) -> np.ndarray:
    """(blocks, blocks) messages per sample from a block to another.

    A neuron's message goes once to each block that it reaches through a synapse.

    Args:
        sent: by population, messages per sample of each neuron, in the population's shape.
    """
    found = np.zeros((blocks, blocks), dtype=np.float32)
    for link in edges.links:
        counts = sent[graph.synapses[link.synapse].source]
        values = (
            counts[link.neurons]
            if isinstance(link.neurons, tuple)
            else counts.ravel()[link.neurons]
        )
        found[link.source, link.target] += float(values.sum())
    return found


def _of_synapse(
    graph: SpikeGraph,
    chip: Chip,
    grids: Mapping[str, Grid],
    first: Mapping[str, int],
    number: int,
    synapse: AnySynapse,
) -> Iterator[Link]:
    sources, targets = grids[synapse.source], grids[synapse.target]
    start, end = first[synapse.source], first[synapse.target]
    if isinstance(synapse, Sparse):
        yield from _of_sparse(graph, sources, targets, start, end, number, synapse)
        return
    for t, target in enumerate(targets):
        if isinstance(synapse, Dense):
            low, high = (0,) * len(sources.shape), sources.shape
        else:
            low, high = receptive_box(graph, synapse, target)
        for s, source in sources.overlapping(low, high):
            box = tuple(
                slice(max(a, c), min(b, d))
                for a, b, c, d in zip(source.low, source.high, low, high, strict=True)
            )
            count = math.prod(one.stop - one.start for one in box)
            shared = isinstance(synapse, Conv2d) and not chip.discrete_axons
            yield Link(start + s, end + t, box, count, shared, number)


def _of_sparse(
    graph: SpikeGraph,
    sources: Grid,
    targets: Grid,
    start: int,
    end: int,
    number: int,
    synapse: Sparse,
) -> Iterator[Link]:
    matrix = graph.matrix(synapse).tocoo()
    size = math.prod(sources.shape)
    keys = np.unique(targets.block_of_neurons()[matrix.row] * size + matrix.col)
    target, column = np.divmod(keys, size)
    source = sources.block_of_neurons()[column]
    pairs = target * len(sources) + source
    order = np.argsort(pairs, kind="stable")
    unique, starts = np.unique(pairs[order], return_index=True)
    for pair, columns in zip(unique, np.split(column[order], starts[1:]), strict=True):
        t, s = divmod(int(pair), len(sources))
        yield Link(start + s, end + t, columns, len(columns), False, number)
