"""Whether the loss is still a number, noticed at the step without waiting for the device at each one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

EVERY = 50  # steps between two looks at a CUDA device; on a CPU looking costs nothing
NONE = -1.0


class TrainingError(ValueError):
    """Training cannot go on: the loss is no longer a number."""


class Health:
    """Remembers the first loss that is no number, on the device: (loss, epoch, step)."""

    def __init__(self, learning_rate: float) -> None:
        self.learning_rate = learning_rate
        self.first_bad = torch.full((3,), NONE)
        self.steps = 0

    def to(self, device: torch.device) -> None:
        """Move the memory to `device`."""
        self.first_bad = self.first_bad.to(device)

    def note(self, loss: Tensor, epoch: int, step: int) -> None:
        """Take note of a loss; every few steps, on a CPU at each, `check`."""
        loss = loss.detach().float()
        place = torch.stack([loss, torch.full_like(loss, epoch), torch.full_like(loss, step)])
        new = ~torch.isfinite(loss) & (self.first_bad[1] == NONE)
        self.first_bad = torch.where(new, place, self.first_bad)
        self.steps += 1
        if self.first_bad.device.type == "cpu" or self.steps % EVERY == 0:
            self.check()

    def check(self, model: nn.Module | None = None) -> None:
        """TrainingError if any loss so far, or a weight of `model`, is no finite number."""
        loss, epoch, step = self.first_bad.tolist()
        if epoch != NONE:
            raise TrainingError(
                f"training: the loss is {loss} at epoch {int(epoch)}, step {int(step)}; train anew "
                f"with a learning_rate below {self.learning_rate:g}"
            )
        if model is None:
            return
        sums = [p.detach().float().sum() for p in model.parameters()]
        if sums and not bool(torch.isfinite(torch.stack(sums)).all()):
            raise TrainingError(
                f"training: weights are no finite numbers after {self.steps} steps; train anew with a "
                f"learning_rate below {self.learning_rate:g}"
            )
