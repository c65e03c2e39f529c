"""Counted operations: one tally per synapse and population, and their sums."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from hardware.energy.operations import PLACED, UNPLACED, Operation
from hardware.energy.parts import part_order


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Operations of one population or synapse, over all samples; what is absent is zero.

    Attributes:
        weights: words that the synapse's weights take (a kernel once); 0 for a population.
        states: membranes of the population, or of the synapse's target.
    """

    where: str
    part: str
    operations: dict[Operation, int]
    weights: int = 0
    states: int = 0


@dataclass(frozen=True, kw_only=True)
class OperationCounts:
    """Counts of one run.

    Attributes:
        samples: S, the number of samples that the counts are summed over.
        time_steps: T, steps of a sample, each closed by a barrier on a chip; samples follow each
            other every T steps.
        synapses: one tally per synapse, in the graph's order.
        populations: one tally per population, in the graph's order.
        chip, chips: what the graph was laid out on and how many of them; None and 0 without a layout.
    """

    samples: int
    time_steps: int
    synapses: tuple[Tally, ...]
    populations: tuple[Tally, ...]
    chip: str | None = None
    chips: int = 0

    @property
    def operations(self) -> tuple[Operation, ...]:
        """What was counted: all, or without a layout those that need none."""
        return UNPLACED if self.chip is None else (*UNPLACED, *PLACED)

    @property
    def totals(self) -> dict[Operation, int]:
        """Every operation that was counted, summed over populations, synapses and samples."""
        return self._sum(self.synapses + self.populations)

    @property
    def by_part(self) -> dict[str, dict[Operation, int]]:
        """The totals split by part of the network; the parts add up to the totals exactly."""
        tallies = self.synapses + self.populations
        parts = sorted({tally.part for tally in tallies}, key=part_order)
        return {part: self._sum(t for t in tallies if t.part == part) for part in parts}

    @property
    def per_sample(self) -> dict[Operation, float]:
        """The totals divided by the number of samples."""
        return {operation: count / self.samples for operation, count in self.totals.items()}

    @property
    def synops_per_sample(self) -> float:
        """Synaptic operations per sample: accumulates plus multiply-accumulates."""
        totals = self.totals
        synops = totals[Operation.ACCUMULATE] + totals[Operation.MULTIPLY_ACCUMULATE]
        return synops / self.samples

    def _sum(self, tallies: Iterable[Tally]) -> dict[Operation, int]:
        total = dict.fromkeys(self.operations, 0)
        for tally in tallies:
            for operation, count in tally.operations.items():
                total[operation] += count
        return total


def add_counts(parts: list[OperationCounts]) -> OperationCounts:
    """The counts of one graph over several batches of samples (at least one), as one."""
    return replace(
        parts[0],
        samples=sum(part.samples for part in parts),
        synapses=_add_tallies([part.synapses for part in parts]),
        populations=_add_tallies([part.populations for part in parts]),
    )


def _add_tallies(parts: list[tuple[Tally, ...]]) -> tuple[Tally, ...]:
    return tuple(
        replace(
            same[0],
            operations={o: sum(t.operations[o] for t in same) for o in same[0].operations},
        )
        for same in zip(*parts, strict=True)
    )
