"""Populations cut into blocks of neurons, each small enough for a core.

A population is cut along the axes of its shape, so that its blocks form a regular grid: of a map
(height, width, channels) they are rectangles of positions and ranges of channels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Block:
    """Neurons `low` <= index < `high` along each axis of the population's shape."""

    population: str
    low: tuple[int, ...]
    high: tuple[int, ...]

    @property
    def neurons(self) -> int:
        """How many."""
        return math.prod(h - a for a, h in zip(self.low, self.high, strict=True))

    @property
    def slices(self) -> tuple[slice, ...]:
        """Of an array of the population's shape."""
        return tuple(slice(a, h) for a, h in zip(self.low, self.high, strict=True))


@dataclass(frozen=True)
class Grid:
    """A population's blocks: along each axis, pieces of the width `widths` (the last may be less)."""

    population: str
    shape: tuple[int, ...]
    widths: tuple[int, ...]

    @property
    def pieces(self) -> tuple[int, ...]:
        """Pieces along each axis."""
        return tuple(math.ceil(n / w) for n, w in zip(self.shape, self.widths, strict=True))

    def __len__(self) -> int:
        return math.prod(self.pieces)

    def __iter__(self) -> Iterator[Block]:
        for index in itertools.product(*(range(p) for p in self.pieces)):
            low = tuple(i * w for i, w in zip(index, self.widths, strict=True))
            high = tuple(
                min(a + w, n) for a, w, n in zip(low, self.widths, self.shape, strict=True)
            )
            yield Block(self.population, low, high)

    def block_of_neurons(self) -> np.ndarray:
        """(n,) the number of the block that each neuron of the flattened population is in."""
        along = [np.arange(n) // w for n, w in zip(self.shape, self.widths, strict=True)]
        number = np.zeros((), dtype=np.int64)
        for piece, axis in zip(self.pieces, along, strict=True):
            number = number[..., None] * piece + axis
        return number.reshape(-1)


def whole(population: str, shape: tuple[int, ...]) -> Grid:
    """A grid of one block, but for maps: their first axis is cut at powers of two.

    So does Intel's compiler, as far as its published tables show: 20 columns become 16 and 4.
    """
    widths = list(shape)
    if len(shape) == 3 and shape[0] * shape[1] > 1:
        widths[0] = 1 << (shape[0].bit_length() - 1)
    return Grid(population, shape, tuple(widths))
