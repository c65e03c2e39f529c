"""What is recorded of a training besides its history: the loss every few steps, and the activity."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from spikingmoe.train.devices import add_over_devices

EVERY = 50  # steps per row
STEP_COLUMNS = ("epoch", "step", "loss", "learning_rate")


class TrainingRecord:
    """Rows that a checkpoint holds too, so that a resumed run neither loses nor repeats one.

    Attributes:
        steps: rows of (epoch, steps done in it, mean loss since the row before, learning rate).
        activity: per epoch what `Activity.record` found.
    """

    def __init__(self) -> None:
        self.steps: list[list[float]] = []
        self.activity: list[dict[str, float]] = []
        self._recent = torch.zeros(2, dtype=torch.float64)  # sum of losses, their number

    def to(self, device: torch.device) -> None:
        """Move the sum of the last losses to `device`."""
        self._recent = self._recent.to(device)

    def note(self, loss: Tensor, epoch: int, step: int, learning_rate: float) -> None:
        """The loss of a step; every 50 steps of an epoch a row."""
        self._recent[0] += loss.detach()
        self._recent[1] += 1
        if (step + 1) % EVERY == 0:
            total, number = add_over_devices(self._recent.clone()).tolist()
            self.steps.append([float(epoch), step + 1.0, total / number, learning_rate])
            self._recent.zero_()

    def state(self) -> dict[str, Any]:
        """For a checkpoint: names and tensors."""
        names = sorted({name for row in self.activity for name in row})
        table = [[row.get(name, math.nan) for name in names] for row in self.activity]
        shape = (len(self.activity), len(names))
        return {
            "steps": torch.tensor(self.steps, dtype=torch.float64).reshape(-1, len(STEP_COLUMNS)),
            "names": names,
            "activity": torch.tensor(table, dtype=torch.float64).reshape(shape),
            "recent": self._recent,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint's."""
        self.steps = state["steps"].tolist()
        self.activity = [
            {n: v for n, v in zip(state["names"], row, strict=True) if not math.isnan(v)}
            for row in state["activity"].tolist()
        ]
        self._recent = state["recent"].clone()
