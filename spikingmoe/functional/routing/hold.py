"""Deciding once per window."""

from __future__ import annotations

import torch
from torch import Tensor


def hold_window(gates: Tensor, step: int) -> Tensor:
    """Keep the decision of `step` for the rest of the window; before it nothing is chosen.

    Args:
        gates: (T, ...).
    """
    silent = torch.zeros_like(gates[:step])
    return torch.cat([silent, gates[step : step + 1].expand(len(gates) - step, *gates.shape[1:])])
