"""`hardware.ir.arithmetic.lif_step` for whole populations, in place and without what cannot matter.

What can reach a population is known beforehand (`hardware.ir.number_formats`): where no membrane can
saturate, nothing is clipped; a neuron that forgets everything needs no membrane.
"""

from __future__ import annotations

import numpy as np

from hardware.ir.arithmetic import (
    ACTIVATION_SHIFT,
    DECAY_UNITY,
    MAX_V,
    kept_share,
)
from hardware.ir.nodes import LIF


class Neurons:
    """The LIF neurons of one population.

    Args:
        dtype: floats that hold every number of the population exactly (`number_formats`).
        fixed: whether the numbers are integers.
        reach: no accumulated input is larger in magnitude; for integers alone.
    """

    def __init__(self, population: LIF, dtype: np.dtype, *, fixed: bool, reach: float) -> None:
        self.population, self.fixed = population, fixed
        number = dtype.type
        kept, unit = population.membrane_decay, 1
        self.saturates = False
        if fixed:
            kept, unit = kept_share(population) / DECAY_UNITY, 2**ACTIVATION_SHIFT
            largest = (reach + np.abs(population.bias).max(initial=0)) * unit
            self.saturates = kept == 1 or bool(largest / (1 - kept) > MAX_V)
        self.kept, self.unit, self.most = number(kept), number(unit), number(MAX_V)
        self.bias = population.bias.astype(dtype) if population.bias.any() else None
        self.threshold = np.asarray(population.threshold, dtype) * self.unit

    @property
    def is_memoryless(self) -> bool:
        """Whether nothing of the membrane is left after a step."""
        return self.kept == 0

    def charge(self, v: np.ndarray, current: np.ndarray) -> None:
        """Turn the membranes after a step into those of the next one, before its reset.

        Args:
            v: (..., *shape). current: the same shape; it is used up.
        """
        v *= self.kept
        if self.fixed:
            np.trunc(v, out=v)
        if self.fixed and self.bias is not None:
            current += self.bias  # before the input is shifted
        if self.unit != 1:
            current *= self.unit
        v += current
        if not self.fixed and self.bias is not None:
            v += self.bias
        if self.saturates:
            np.minimum(v, self.most, out=v)  # faster than clip
            np.maximum(v, -self.most, out=v)

    def step(self, v: np.ndarray, current: np.ndarray, spikes: np.ndarray) -> None:
        """One step: `v` becomes the membranes after it, `spikes` what was sent; `current` is used up."""
        self.charge(v, current)
        np.greater(v, self.threshold, out=spikes)
        v *= np.logical_not(spikes).astype(v.dtype)  # masked assignment is slower

    def forget(self, current: np.ndarray, spikes: np.ndarray) -> None:
        """Any number of steps of neurons without a memory, at once; `current` is used up."""
        if self.bias is not None:
            current += self.bias
        np.greater(current, self.threshold / self.unit, out=spikes)
