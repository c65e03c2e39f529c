"""What a table asks for a quantised non-spiking network: 8-bit weights, activations of b bits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hardware.energy.band import Band

if TYPE_CHECKING:
    from hardware.energy.costs import Cost, Grade, MemoryCost

NOTHING = Band(value=0.0, low=0.0, high=0.0)


@dataclass(frozen=True, kw_only=True)
class ArrayMultiplier:
    """A multiplier whose energy grows with its rows, one per bit of the activation, and an adder.

    Value and low end: multiply_pj b / 8; high end: the whole 8 x 8 multiplier, whatever the bits.

    Args:
        multiply_pj: 8 x 8 bits.
        add_pj: into the accumulator.
    """

    multiply_pj: float
    add_pj: Band

    def mac(self, bits: int) -> Band:
        """Picojoules of one multiply-accumulate with an activation of so many bits."""
        rows = self.multiply_pj * bits / 8
        add = self.add_pj
        return Band(value=rows + add.value, low=rows + add.low, high=self.multiply_pj + add.high)


@dataclass(frozen=True, kw_only=True)
class BitSerial:
    """One add per bit that is set: half of them, at least one; low end: one; high end: all."""

    add_pj: float

    def mac(self, bits: int) -> Band:
        """Picojoules of one multiply-accumulate with an activation of so many bits."""
        return Band(
            value=self.add_pj * max(1.0, bits / 2), low=self.add_pj, high=self.add_pj * bits
        )


@dataclass(frozen=True, kw_only=True)
class QuantisedCosts:
    """Prices of a quantised network under one table.

    Args:
        unit: what computes a multiply-accumulate.
        reads: per multiply-accumulate with a weight: memories that hold the layer's weights, or (as
            "states") the activations that it reads.
        writes: per activation.
        rescale_pj: per activation: back to few bits.
        message_bit_pj: per bit of an activation that is sent on.
        source, grade, note, boundary: as for a cost and a table.
    """

    unit: ArrayMultiplier | BitSerial
    reads: tuple[Cost | MemoryCost, ...] = ()
    writes: tuple[Cost | MemoryCost, ...] = ()
    rescale_pj: Band = NOTHING
    message_bit_pj: Band = NOTHING
    source: str
    grade: Grade
    note: str
    boundary: str
