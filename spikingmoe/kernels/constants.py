"""What a fused kernel must know of its neurons, and of the rows of experts."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from spikingmoe.config.model import Surrogate


@dataclass(frozen=True, kw_only=True)
class NeuronConstants:
    """The constants of a LIF population, as in `spikingmoe.layers.LIF`."""

    membrane_decay: float
    threshold: float
    surrogate: Surrogate
    detach_reset: bool


@dataclass(frozen=True, kw_only=True)
class Sequences:
    """Rows that are ordered by expert, by token and by step, as `plan_dispatch` makes them.

    Attributes:
        first: (E + 1,) int64, the first sequence of each expert, and how many there are.
        starts: (Q + 1,) int64, the first row of each sequence, and how many there are.
        gaps: (R,) uint8, steps since the row before in the same sequence.
        per_expert: sequences of each expert.
        longest: steps of the window; no sequence lasts longer.
    """

    first: Tensor
    starts: Tensor
    gaps: Tensor
    per_expert: list[int]
    longest: int


def check_steps(x: Tensor, steps: int) -> None:
    """ValueError unless currents are given for each step, or once for all: kernels read no further."""
    if len(x) not in (1, steps):
        raise ValueError(f"currents of {len(x)} steps for a window of {steps}; needs 1 or {steps}")
