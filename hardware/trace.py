"""`SpikeTrace`: what every population sent, per sample and step."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True, kw_only=True, eq=False)
class SpikeTrace:
    """Recorded activity of one run.

    Attributes:
        spikes: by population, an array (S, T, *shape): bool for binary spikes, numbers (floats, or
            integers in fixed point) for graded messages and for the readout's currents.
        logits: (S, classes), in real units.
        meta: backend, arithmetic, samples, time_steps, fingerprint of the graph, seconds.
    """

    spikes: dict[str, np.ndarray]
    logits: np.ndarray
    meta: dict[str, object] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        """Number of samples S."""
        return len(self.logits)

    @property
    def predictions(self) -> np.ndarray:
        """(S,) index of the largest logit, the lower one at a tie."""
        return self.logits.argmax(axis=1)

    def firing_rate(self, name: str) -> float:
        """Share of (sample, step, neuron) at which the population sent a non-zero message."""
        return float(np.count_nonzero(self.spikes[name]) / self.spikes[name].size)
