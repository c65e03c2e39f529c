"""The integer grid of the target: signed weights of 8 bits or fewer, times a power of two.

Loihi stores a signed weight of b bits in the upper bits of 9: its values are the multiples of 2^(9 - b)
in -256..255, so even numbers for 8 bits and multiples of 32 for 4. The lowest of them has no
positive twin and is not used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hardware.errors import GraphError

HIGHEST_EXPONENT = 7
STORED_BITS = 9  # sign, and the eight that a weight is shifted up to
CLIPPED = 3  # how many halvings of the largest weight are tried where bits are few


@dataclass(frozen=True)
class WeightGrid:
    """Which integers a synapse's weights can be: mantissa * 2^exponent.

    Args:
        bits: of a weight, sign included: 2 to 8.
    """

    bits: int = 8

    def __post_init__(self) -> None:
        if type(self.bits) is not int or not 2 <= self.bits <= 8:
            raise GraphError(f"weight_bits={self.bits!r}; use 2 to 8")

    @property
    def step(self) -> int:
        """Distance of two mantissas."""
        return 2 ** (STORED_BITS - self.bits)

    @property
    def largest(self) -> int:
        """Largest mantissa."""
        return 256 - self.step

    @property
    def lowest_exponent(self) -> int:
        """Lowest exponent with which every weight, and so every sum, is a whole number."""
        return self.bits - STORED_BITS

    def mantissa(self, weight: np.ndarray, exponent: int) -> np.ndarray:
        """The nearest mantissas (halves to even), int32; what is too large is clipped."""
        top = self.largest // self.step
        steps = np.clip(np.rint(weight / (2.0**exponent * self.step)), -top, top)
        return (self.step * steps).astype(np.int32)

    def exponent(self, weight: np.ndarray, importance: np.ndarray | float = 1.0) -> int:
        """The exponent with the least squared error; with 8 bits no weight is ever clipped.

        Args:
            weight: in integer units.
            importance: of each weight's error, broadcast to `weight`.
        """
        largest_weight = float(np.abs(weight).max(initial=0.0))
        whole = self.lowest_exponent
        if largest_weight > 0:
            needed = int(np.ceil(np.log2(largest_weight / (self.largest + self.step / 2))))
            whole = max(whole, needed)
        while np.rint(largest_weight / 2.0**whole / self.step) * self.step > self.largest:
            whole += 1
        if self.bits == 8:
            return whole
        tried = range(whole, max(self.lowest_exponent, whole - CLIPPED) - 1, -1)
        return min(tried, key=lambda e: self.error(weight, e, importance))

    def error(
        self, weight: np.ndarray, exponent: int, importance: np.ndarray | float = 1.0
    ) -> float:
        """Sum of importance times squared rounding error, in squared integer units."""
        difference = self.mantissa(weight, exponent) * 2.0**exponent - weight
        return float((importance * np.square(difference)).sum())


def to_integers(values: np.ndarray) -> np.ndarray:
    """Rounded to whole numbers (halves to even), int32."""
    return np.asarray(np.rint(values), dtype=np.int32)
