"""Whether one chip holds a graph, as far as we can tell, without placing it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hardware.ir.graph import SpikeGraph
from hardware.loihi.chips import get_chip
from hardware.loihi.mapping import find_problems
from hardware.loihi.partition import partition


@dataclass(frozen=True, kw_only=True)
class Fit:
    """An estimate: cores and chips that a graph takes, and what is known to stand against it."""

    chip: str
    cores: int
    chips: int
    problems: tuple[str, ...]

    @property
    def warnings(self) -> list[str]:
        """One line for everything that may keep it off one chip."""
        many = (
            [f"takes about {self.cores} cores by our estimate, which is {self.chips} chips"]
            if self.chips > 1
            else []
        )
        return [*many, *self.problems]


def estimate_fit(graph: SpikeGraph, chip: str = "loihi2") -> Fit:
    """Cut a balanced graph into cores; MappingError for an unknown chip."""
    limits = get_chip(chip)
    cut = partition(graph, limits)
    return Fit(
        chip=chip,
        cores=len(cut.cores),
        chips=math.ceil(len(cut.cores) / limits.cores),
        problems=tuple(find_problems(graph, limits, cut)),
    )
