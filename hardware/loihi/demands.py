"""What a block of neurons needs of a core: axons that come in, and memory for their synapses."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import dataclass

import numpy as np

from hardware.ir.graph import SpikeGraph
from hardware.ir.synapses import AnySynapse, Conv2d, Dense
from hardware.loihi.blocks import Block, Grid
from hardware.loihi.chips import Chip

Box = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Demand:
    """Of a block: what is added up over the blocks of a core."""

    neurons: int = 0
    in_axons: int = 0
    synapse_words: int = 0
    out_axons: int = 0

    def __add__(self, other: Demand) -> Demand:
        return Demand(
            self.neurons + other.neurons,
            self.in_axons + other.in_axons,
            self.synapse_words + other.synapse_words,
            self.out_axons + other.out_axons,
        )

    def use(self, chip: Chip) -> dict[str, float]:
        """Share of each limit of a core that is known; above 1 it does not fit."""
        limits = {
            "neurons": chip.neurons,
            "in_axons": chip.in_axons,
            "synapse_words": chip.synapse_words,
            "out_axons": chip.out_axons,
        }
        return {name: getattr(self, name) / limit for name, limit in limits.items() if limit}

    def fits(self, chip: Chip) -> bool:
        """Whether a core holds it."""
        return all(share <= 1 for share in self.use(chip).values())


def demand_of(graph: SpikeGraph, chip: Chip, block: Block) -> Demand:
    """Neurons, incoming axons and synapse memory of a block; outgoing axons depend on the others.

    Convolutions store their kernel once for all positions of the block: on Loihi 1 once per
    distinct set of taps that a source position uses there (as nengo-loihi shares weights), on Loihi 2 once
    altogether. All other synapses are stored as they are.
    """
    found = Demand(neurons=block.neurons)
    for synapse in graph.incoming(block.population):
        axons, words = _of_synapse(graph, chip, synapse, block)
        found += Demand(in_axons=axons, synapse_words=words)
    return found


def receptive_box(graph: SpikeGraph, synapse: Conv2d, block: Block) -> Box:
    """The box of source neurons (height, width, channels) that a convolution lets the block see."""
    spans = [
        _receptive_span(graph, synapse, axis, low, high)
        for axis, (low, high) in enumerate(zip(block.low, block.high, strict=True))
    ]
    return tuple(low for low, _ in spans), tuple(high for _, high in spans)


def receptive_spans(
    graph: SpikeGraph, synapse: Conv2d, targets: Grid
) -> list[list[tuple[int, int]]]:
    """The same along each axis, for each piece of a grid of blocks."""
    return [
        [
            _receptive_span(graph, synapse, axis, start, min(start + width, n))
            for start in range(0, n, width)
        ]
        for axis, (n, width) in enumerate(zip(targets.shape, targets.widths, strict=True))
    ]


def _receptive_span(
    graph: SpikeGraph, synapse: Conv2d, axis: int, low: int, high: int
) -> tuple[int, int]:
    size = graph.populations[synapse.source].shape[axis]
    if axis == 2:
        per_group_out = synapse.weight.shape[0] // synapse.groups
        per_group_in = size // synapse.groups
        first, last = low // per_group_out, (high - 1) // per_group_out
        return first * per_group_in, (last + 1) * per_group_in
    stride, padding = synapse.stride[axis], synapse.padding[axis]
    reach = synapse.dilation[axis] * (synapse.weight.shape[2 + axis] - 1)
    return max(0, low * stride - padding), min(size, (high - 1) * stride - padding + reach + 1)


def _of_synapse(
    graph: SpikeGraph, chip: Chip, synapse: AnySynapse, block: Block
) -> tuple[int, int]:
    """(axons, words of synapse memory)."""
    if isinstance(synapse, Dense):
        sources = math.prod(graph.populations[synapse.source].shape)
        return sources, sources * chip.axon_words(block.neurons, block.neurons)
    if isinstance(synapse, Conv2d):
        return _of_convolution(graph, chip, synapse, block)
    inside = np.zeros(graph.populations[synapse.target].shape, dtype=bool)
    inside[block.slices] = True
    used = inside.ravel()[synapse.rows] & (synapse.weight != 0)
    weights = np.bincount(synapse.columns[used])
    sizes = Counter(weights[weights > 0].tolist())
    words = sum(count * chip.axon_words(n, block.neurons) for n, count in sizes.items())
    return sum(sizes.values()), words


def _of_convolution(
    graph: SpikeGraph, chip: Chip, synapse: Conv2d, block: Block
) -> tuple[int, int]:
    low, high = receptive_box(graph, synapse, block)
    channels_in = high[2] - low[2]
    channels_out = block.high[2] - block.low[2]
    if synapse.groups > 1:  # a source channel drives those of its own group alone
        channels_out = min(channels_out, synapse.weight.shape[0] // synapse.groups)
    if not chip.discrete_axons:
        taps = synapse.weight.shape[2] * synapse.weight.shape[3]
        return 1, taps * channels_in * chip.axon_words(channels_out, block.neurons)
    patterns = [_tap_patterns(synapse, axis, low[axis], high[axis], block) for axis in (0, 1)]
    words = sum(
        chip.axon_words(rows * columns * channels_out, block.neurons)
        for rows, columns in itertools.product(*patterns)
    )
    positions = (high[0] - low[0]) * (high[1] - low[1])
    return positions * channels_in, channels_in * words


def _tap_patterns(synapse: Conv2d, axis: int, low: int, high: int, block: Block) -> list[int]:
    """Sizes of the distinct sets of taps that source positions low..high use along an axis."""
    stride, padding, step = synapse.stride[axis], synapse.padding[axis], synapse.dilation[axis]
    found: set[tuple[int, ...]] = set()
    for source in range(low, high):
        taps = []
        for tap in range(synapse.weight.shape[2 + axis]):
            position = source + padding - tap * step
            if position % stride == 0 and block.low[axis] <= position // stride < block.high[axis]:
                taps.append(tap)
        if taps:
            found.add(tuple(taps))
    return [len(taps) for taps in found]
