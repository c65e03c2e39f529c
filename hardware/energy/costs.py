"""Costs: picojoules per operation, each constant with its source, its grade and its band."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from hardware.energy.band import Band
from hardware.energy.operations import BASIC, PLACED, REFINES, Operation
from hardware.energy.quantised_costs import QuantisedCosts
from hardware.energy.tally import Tally
from hardware.errors import HardwareError

Grade = Literal["measured", "fitted", "pre-silicon", "analytical", "convention"]


def check_grade(grade: str, source: str, what: str) -> None:
    """HardwareError for an empty source or an unknown grade."""
    if not source.strip():
        raise HardwareError(f"{what} has no source; name the publication")
    if grade not in get_args(Grade):
        raise HardwareError(f"grade {grade!r}; use one of {', '.join(get_args(Grade))}")


def check_band(value: float, low: float, high: float, what: str) -> None:
    """HardwareError unless 0 <= low <= value <= high, all finite."""
    ordered = 0 <= low <= value <= high
    if not ordered or not math.isfinite(high):
        raise HardwareError(
            f"{what} with band {low} to {high}; needs 0 <= low <= value <= high, finite"
        )


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Energy of one operation.

    Args:
        value_pj, low_pj, high_pj: picojoules; 0 <= low_pj <= value_pj <= high_pj.
        source: publication and place in it; for a derived number, what it was derived from.
        grade: how `value_pj` was obtained.
        note: what the band means.

    Raises:
        HardwareError: for a band out of order, an empty source or an unknown grade.
    """

    value_pj: float
    low_pj: float
    high_pj: float
    source: str
    grade: Grade
    note: str

    def __post_init__(self) -> None:
        what = f"cost {self.value_pj} pJ"
        check_band(self.value_pj, self.low_pj, self.high_pj, what)
        check_grade(self.grade, self.source, what)

    def of(self, _tally: Tally) -> Band:
        """Picojoules per operation: the same wherever it happens."""
        return Band(value=self.value_pj, low=self.low_pj, high=self.high_pj)


@dataclass(frozen=True, kw_only=True)
class MemoryCost:
    """Energy of accesses to a memory that is as large as what it holds.

    Linear between `points`, constant beyond the last; the band is that of memories of `low_bytes`
    (the content spread over small ones) and of `high_bytes` (everything in a large one).

    Args:
        holds: "weights" of the synapse, or "states": one word per neuron of the (target) population.
        word_bytes: bytes of a word, which is what one access moves.
        points: (bytes, picojoules per access), both rising, from (0, 0) on.
        accesses: how many one operation makes.
        low_bytes, high_bytes: sizes for the ends of the band.
        source, grade, note: as for `Cost`.

    Raises:
        HardwareError: for points that do not rise, or as `Cost`.
    """

    holds: Literal["weights", "states"]
    word_bytes: int
    points: tuple[tuple[float, float], ...]
    accesses: int
    low_bytes: float
    high_bytes: float
    source: str
    grade: Grade
    note: str

    def __post_init__(self) -> None:
        rising = all(a[0] < b[0] and 0 <= a[1] <= b[1] for a, b in itertools.pairwise(self.points))
        if len(self.points) < 2 or not rising:
            raise HardwareError(
                f"memory cost of {self.holds}: points {self.points} must rise in bytes and picojoules"
            )
        check_grade(self.grade, self.source, f"memory cost of {self.holds}")

    def at(self, size_bytes: float) -> float:
        """Picojoules of one access to a memory of this size."""
        for (x0, y0), (x1, y1) in itertools.pairwise(self.points):
            if size_bytes <= x1:
                return y0 + (y1 - y0) * (size_bytes - x0) / (x1 - x0)
        return self.points[-1][1]

    def of(self, tally: Tally) -> Band:
        """Picojoules per operation on what the tally's synapse or population stores."""
        words = tally.weights if self.holds == "weights" else tally.states
        value = self.at(words * self.word_bytes)
        return Band(
            value=self.accesses * value,
            low=self.accesses * min(value, self.at(self.low_bytes)),
            high=self.accesses * max(value, self.at(self.high_bytes)),
        )


@dataclass(frozen=True, kw_only=True)
class StaticPower:
    """What a chip draws while it waits, and how long a step lasts at the least.

    Args:
        power_mw, step_ns: per chip and per time step, with their bands.
        source, grade, note: as for `Cost`.

    Raises:
        HardwareError: as `Cost`.
    """

    power_mw: Band
    step_ns: Band
    source: str
    grade: Grade
    note: str

    def __post_init__(self) -> None:
        for what, band in (("static power", self.power_mw), ("time of a step", self.step_ns)):
            check_band(band.value, band.low, band.high, f"{what} {band.value}")
        check_grade(self.grade, self.source, "static power")

    def energy_pj(self, steps: int, chips: int) -> Band:
        """Static energy of so many steps; a milliwatt for a nanosecond is a picojoule."""
        n, power, time = steps * chips, self.power_mw, self.step_ns
        return Band(
            value=n * power.value * time.value,
            low=n * power.low * time.low,
            high=n * power.high * time.high,
        )


@dataclass(frozen=True, kw_only=True)
class CostTable:
    """Costs by operation, and what they leave out.

    Args:
        name, title: short name for scripts, full name for people.
        boundary: what is inside the estimate and what is not.
        costs: the operations that have a price.
        not_priced: every other basic operation, with the reason why it has none.
        caveats: what a reader of the number must know.
        prices_ann: whether its multiply-accumulate is an arithmetic unit's, so that it also prices
            a non-spiking network.
        quantised: prices of a quantised non-spiking network; None for a table without.
        chip: the chip that it prices a layout on; None for a table that needs no layout.
        static: static power; it is reported beside the sum of the operations, never in it.

    Raises:
        HardwareError: unless each basic operation stands in exactly one of `costs` and `not_priced`,
            for one that is priced together with a finer one that repeats it, and for prices that
            need a layout without the chip.
    """

    name: str
    title: str
    boundary: str
    costs: Mapping[Operation, Cost | MemoryCost]
    not_priced: Mapping[Operation, str]
    caveats: tuple[str, ...] = ()
    prices_ann: bool = False
    quantised: QuantisedCosts | None = None
    chip: str | None = None
    static: StaticPower | None = None

    def __post_init__(self) -> None:
        for operation in (*BASIC, *self.not_priced):
            if (operation in self.costs) == (operation in self.not_priced):
                raise HardwareError(
                    f"cost table '{self.name}': {operation} must stand in exactly one of costs and "
                    f"not_priced"
                )
        for fine, basic in REFINES.items():
            if fine in self.costs and basic in self.costs:
                raise HardwareError(
                    f"cost table '{self.name}': {fine} is part of {basic}; price one of the two, "
                    f"not both"
                )
        placed = [operation for operation in PLACED if operation in self.costs]
        if placed and self.chip is None:
            raise HardwareError(
                f"cost table '{self.name}': {placed[0]} depends on where neurons lie; name the chip"
            )
