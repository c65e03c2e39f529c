"""What a fused kernel must know of its neurons."""

from __future__ import annotations

from dataclasses import dataclass

from spikingmoe.config.model import Surrogate


@dataclass(frozen=True, kw_only=True)
class NeuronConstants:
    """The constants of a LIF population, as in `spikingmoe.layers.LIF`."""

    membrane_decay: float
    threshold: float
    surrogate: Surrogate
    detach_reset: bool
