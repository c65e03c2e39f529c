"""The files of what is recorded: one row per hardware step, binary messages as packed bits."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class Track:
    """One recorded population: its number of neurons, whether it is binary, and the file."""

    neurons: int
    binary: bool
    path: str

    def create(self, steps: int) -> None:
        """Make the file, full of zeros."""
        width = (self.neurons + 7) // 8 if self.binary else self.neurons
        dtype = np.uint8 if self.binary else np.float64  # integers up to 2^53 are exact in it
        np.lib.format.open_memmap(self.path, mode="w+", dtype=dtype, shape=(steps, width))

    def to_rows(self, values: np.ndarray) -> np.ndarray:
        """Messages (..., neurons) as rows of the file."""
        return np.packbits(values != 0, axis=-1) if self.binary else values

    def read(self) -> np.ndarray:
        """(steps, neurons): bool, or float64."""
        rows = np.load(self.path, allow_pickle=False)
        return np.unpackbits(rows, axis=1, count=self.neurons).astype(bool) if self.binary else rows
