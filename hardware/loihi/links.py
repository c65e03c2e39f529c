"""Which blocks of two populations one synapse connects, for all pairs of blocks at once.

Blocks form regular grids, and what a convolution lets a block see is a box: along each axis its pieces
overlap on their own, and the links are the products of these overlaps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hardware.loihi.blocks import Grid

Span = tuple[int, int]  # low <= index < high


@dataclass(frozen=True, eq=False)
class Overlaps:
    """Along one axis, an entry per (piece of the target, piece of the source that it sees).

    Attributes:
        target, source: numbers of the pieces.
        low, high: the positions of the source piece that are seen.
    """

    target: np.ndarray
    source: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def indicator(self, positions: int) -> np.ndarray:
        """(entries, positions) 1 where an entry holds a position."""
        at = np.arange(positions)
        return ((self.low[:, None] <= at) & (at < self.high[:, None])).astype(np.float64)


@dataclass(frozen=True, eq=False)
class BoxLinks:
    """Links whose neurons are boxes of the source population.

    Attributes:
        source, target: (links,) numbers of blocks within their grids.
        axes: of the source population.
        repeats: how often the product of the axes is repeated, once for each target that sees all of it.
    """

    source: np.ndarray
    target: np.ndarray
    axes: tuple[Overlaps, ...]
    repeats: int = 1

    @property
    def neurons(self) -> np.ndarray:
        """(links,) neurons of the source that send."""
        counts = np.ones(1, dtype=np.int64)
        for axis in self.axes:
            counts = np.multiply.outer(counts, axis.high - axis.low).ravel()
        return np.tile(counts, self.repeats)

    def sums(self, values: np.ndarray) -> np.ndarray:
        """(links,) sums of a value per neuron of the source population."""
        for axis in self.axes:  # the axis in front is summed into entries that go to the end
            values = np.tensordot(values, axis.indicator(values.shape[0]), axes=(0, 1))
        return np.tile(values.ravel(), self.repeats)


@dataclass(frozen=True, eq=False)
class ListedLinks:
    """Links whose neurons are listed.

    Attributes:
        source, target: (links,) numbers of blocks within their grids.
        listed: numbers of source neurons, those of one link after those of another.
        starts: (links,) where those of each begin.
    """

    source: np.ndarray
    target: np.ndarray
    listed: np.ndarray
    starts: np.ndarray

    @property
    def neurons(self) -> np.ndarray:
        """(links,) neurons of the source that send."""
        return np.diff(self.starts, append=len(self.listed))

    def sums(self, values: np.ndarray) -> np.ndarray:
        """(links,) sums of a value per neuron of the source population."""
        if not len(self.starts):
            return np.zeros(0)
        return np.add.reduceat(values.ravel()[self.listed], self.starts)


Links = BoxLinks | ListedLinks


def links_of_all(sources: Grid, targets: Grid) -> BoxLinks:
    """Every neuron of the source sends to every block of the target."""
    axes = tuple(
        _overlaps([(0, n)], width, n)
        for width, n in zip(sources.widths, sources.shape, strict=True)
    )
    blocks = np.arange(len(sources))
    return BoxLinks(
        source=np.tile(blocks, len(targets)),
        target=np.repeat(np.arange(len(targets)), len(blocks)),
        axes=axes,
        repeats=len(targets),
    )


def links_of_boxes(sources: Grid, targets: Grid, spans: Sequence[Sequence[Span]]) -> BoxLinks:
    """Each block of the target sees a box of the source.

    Args:
        spans: along each axis, what each piece of the target sees.
    """
    axes = tuple(
        _overlaps(along, width, n)
        for along, width, n in zip(spans, sources.widths, sources.shape, strict=True)
    )
    source = target = np.zeros(1, dtype=np.int64)
    for axis, own, other in zip(axes, sources.pieces, targets.pieces, strict=True):
        source = np.add.outer(source * own, axis.source).ravel()
        target = np.add.outer(target * other, axis.target).ravel()
    return BoxLinks(source, target, axes)


def links_of_list(
    sources: Grid, targets: Grid, rows: np.ndarray, columns: np.ndarray
) -> ListedLinks:
    """Single connections: `rows` are neurons of the target, `columns` of the source."""
    size = math.prod(sources.shape)
    keys = np.unique(targets.block_of_neurons()[rows] * size + columns)
    target, column = np.divmod(keys, size)
    pairs = target * len(sources) + sources.block_of_neurons()[column]
    order = np.argsort(pairs, kind="stable")
    unique, starts = np.unique(pairs[order], return_index=True)
    to, own = np.divmod(unique, len(sources))
    return ListedLinks(source=own, target=to, listed=column[order], starts=starts)


def _overlaps(spans: Sequence[Span], width: int, positions: int) -> Overlaps:
    rows = []
    for target, (low, high) in enumerate(spans):
        pieces = math.ceil(positions / width)
        for source in range(max(0, low // width), min(pieces, math.ceil(high / width))):
            start = source * width
            end = min(start + width, positions)
            rows.append((target, source, max(low, start), min(high, end)))
    return Overlaps(*np.array(rows, dtype=np.int64).reshape(-1, 4).T)
