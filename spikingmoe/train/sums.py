"""Sums over an epoch, kept on the device so that no step waits for it."""

from __future__ import annotations

import torch
from torch import Tensor

from spikingmoe.train.devices import add_over_devices

NAMES = ("loss", "correct", "samples", "validation_correct", "validation_samples")


class EpochSums:
    """Loss, right answers and samples of an epoch so far, on this device."""

    def __init__(self) -> None:
        self.values = torch.zeros(len(NAMES), dtype=torch.float64)

    def reset(self, device: torch.device) -> None:
        """Begin an epoch."""
        self.values = torch.zeros(len(NAMES), dtype=torch.float64, device=device)

    def add_training(self, loss: Tensor, logits: Tensor, targets: Tensor, samples: int) -> None:
        """`samples` samples of mean `loss`; targets are classes or probabilities."""
        if samples:
            self.values[0] += loss.detach() * samples
            self.values[1] += _right(logits, targets)
            self.values[2] += samples

    def add_validation(self, logits: Tensor, targets: Tensor, samples: int) -> None:
        """`samples` held-out samples."""
        if samples:
            self.values[3] += _right(logits, targets)
            self.values[4] += samples

    def record(self) -> dict[str, float]:
        """Loss and accuracies over all devices; the one wait of an epoch."""
        sums = dict(zip(NAMES, self.total().tolist(), strict=True))
        samples = max(1.0, sums["samples"])
        found = {"loss": sums["loss"] / samples, "train_accuracy": sums["correct"] / samples}
        if sums["validation_samples"]:
            found["validation_accuracy"] = sums["validation_correct"] / sums["validation_samples"]
        return found

    def total(self) -> Tensor:
        """The sums over all devices."""
        return add_over_devices(self.values.clone())

    def load(self, total: Tensor, rank: int) -> None:
        """Go on from `total`, which the first device takes over."""
        self.values = total.clone() if rank == 0 else torch.zeros_like(total)

    def to(self, device: torch.device) -> None:
        """Move the sums to `device`."""
        self.values = self.values.to(device)


def _right(logits: Tensor, targets: Tensor) -> Tensor:
    labels = targets if targets.ndim == 1 else targets.argmax(1)
    return (logits.detach().argmax(1) == labels).sum()
