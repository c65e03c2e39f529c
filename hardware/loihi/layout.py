"""`CoreLayout`: which core of a chip holds which neurons, and how far its messages travel."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hardware.errors import MappingError
from hardware.ir.fan_out import heard
from hardware.ir.graph import SpikeGraph
from hardware.ir.synapses import AnySynapse, Conv2d, Dense, conv_output_shape
from hardware.loihi.blocks import Block


@dataclass(frozen=True, kw_only=True, eq=False)
class CoreLayout:
    """Where the neurons of a graph lie.

    Attributes:
        chip, chips: the chip's name, and how many of them.
        blocks: neurons that lie together; those of one population cover it.
        core: (blocks,) the core of each block.
        row, column: (cores,) tile of each core, over all chips.
    """

    chip: str
    chips: int
    blocks: tuple[Block, ...]
    core: np.ndarray
    row: np.ndarray
    column: np.ndarray

    @cached_property
    def of(self) -> dict[str, list[tuple[Block, int]]]:
        """(block, core) of each population."""
        found: dict[str, list[tuple[Block, int]]] = {}
        for block, core in zip(self.blocks, self.core.tolist(), strict=True):
            found.setdefault(block.population, []).append((block, core))
        return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Reach:
    """What one message of each neuron of a population takes, (n,) int64 each.

    Attributes:
        cores: cores that it goes to: those with at least one neuron behind a weight that is not
            zero, its own core included. Each takes a message of its own (multicast as unicast).
        east_west, north_south: tiles that these messages pass along rows and along columns.
    """

    cores: np.ndarray
    east_west: np.ndarray
    north_south: np.ndarray


def reach_of(graph: SpikeGraph, layout: CoreLayout, name: str) -> Reach:
    """Cores and hops of the messages of population `name`; MappingError for another graph's layout."""
    shape = graph.populations[name].shape
    hears = np.zeros((math.prod(shape), len(layout.row)), dtype=bool)
    for synapse in graph.outgoing(name):
        for block, core in _blocks_of(graph, layout, synapse.target):
            hears[:, core] |= _speaks_to(graph, synapse, block)
    own = np.empty(shape, dtype=np.int64)
    for block, core in _blocks_of(graph, layout, name):
        own[block.slices] = core
    source = own.ravel()[:, None]

    def hops(place: np.ndarray) -> np.ndarray:
        return (hears * abs(place[source] - place[None, :])).sum(axis=1, dtype=np.int64)

    return Reach(
        cores=hears.sum(axis=1, dtype=np.int64),
        east_west=hops(layout.column),
        north_south=hops(layout.row),
    )


def _blocks_of(graph: SpikeGraph, layout: CoreLayout, name: str) -> list[tuple[Block, int]]:
    shape = graph.populations[name].shape
    found = layout.of.get(name, [])
    inside = all(
        len(block.high) == len(shape)
        and all(h <= n for h, n in zip(block.high, shape, strict=True))
        for block, _ in found
    )
    if not inside or sum(block.neurons for block, _ in found) != math.prod(shape):
        raise MappingError(
            f"the layout does not cover population '{name}' of shape {shape}; map this graph"
        )
    return found


def _speaks_to(graph: SpikeGraph, synapse: AnySynapse, block: Block) -> np.ndarray:
    """(n_source,) whether a neuron has a weight that is not zero onto the block."""
    source = graph.populations[synapse.source].shape
    target = graph.populations[synapse.target].shape
    if isinstance(synapse, Conv2d):
        return _speaks_through_kernel(synapse, source, block)
    inside = np.zeros(target, dtype=bool)
    inside[block.slices] = True
    if isinstance(synapse, Dense):
        return (synapse.weight[inside.ravel()] != 0).any(axis=0)
    used = synapse.columns[inside.ravel()[synapse.rows] & (synapse.weight != 0)]
    speaks = np.zeros(math.prod(source), dtype=bool)
    speaks[used] = True
    return speaks


def _speaks_through_kernel(synapse: Conv2d, shape: tuple[int, ...], block: Block) -> np.ndarray:
    channels_out, _, kernel_h, kernel_w = synapse.weight.shape
    used = synapse.weight != 0
    used[: block.low[2]] = False
    used[block.high[2] :] = False
    grouped = used.reshape(synapse.groups, channels_out // synapse.groups, *used.shape[1:])
    taps = grouped.any(axis=1).reshape(shape[2], kernel_h, kernel_w)
    out = conv_output_shape(shape, synapse)
    speaks = np.zeros(shape, dtype=bool)
    for y in range(kernel_h):
        rows = heard(synapse, 0, y, shape, range(block.low[0], min(block.high[0], out[0])))
        for x in range(kernel_w):
            columns = heard(synapse, 1, x, shape, range(block.low[1], min(block.high[1], out[1])))
            speaks[np.ix_(rows, columns)] |= taps[:, y, x]
    return speaks.ravel()
