"""Numbers that the host knows, for the device, without waiting for it."""

from __future__ import annotations

import torch
from torch import Tensor


def to_device(numbers: list[float], like: Tensor) -> Tensor:
    """(n,) float64 where `like` lies. A copy from pinned memory queues up as kernels do."""
    made = torch.tensor(numbers, dtype=torch.float64)
    if like.device.type == "cuda":
        return made.pin_memory().to(like.device, non_blocking=True)
    return made.to(like.device)
