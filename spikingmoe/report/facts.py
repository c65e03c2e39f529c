"""What a report shows: plain data, so that the page knows neither torch nor the hardware package."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class ReportFacts:
    """One run, ready to be shown.

    Attributes:
        metrics: the content of metrics.json.
        classes: names by label.
        images: (n, height, width, C) pixels in 0..1 of the samples shown.
        labels: (n,).
        predictions: (n,) by name of the arithmetic or backend.
        spikes: what each population sent for these samples, (n, T, *shape).
        depth: of each population, in hardware steps.
        history: one record per epoch (epoch, loss, train_accuracy, validation_accuracy).
    """

    metrics: dict
    classes: tuple[str, ...]
    images: np.ndarray
    labels: np.ndarray
    predictions: dict[str, np.ndarray]
    spikes: dict[str, np.ndarray]
    depth: dict[str, int]
    history: list[dict[str, float]]

    @property
    def routers(self) -> list[str]:
        """Names of the mixtures, e.g. `blocks.0.moe`; empty for a dense model."""
        gate = re.compile(r"\.moe(\.links\.\d+)?\.gate$")
        return [name.removesuffix(".gate") for name in self.spikes if gate.search(name)]

    def gates(self, router: str) -> np.ndarray:
        """(n, T, height, width, E): the gates that the experts saw (the latch, if decisions are held).

        Image-wise gates are repeated for all tokens.
        """
        latch = f"{router}.latch"
        gates = self.spikes[latch if latch in self.spikes else f"{router}.gate"]
        tokens = self.spikes.get(f"{router}.x", gates).shape[2:4]
        return np.broadcast_to(gates, (*gates.shape[:2], *tokens, gates.shape[-1]))
