"""Noisy top-k: noise of learned size on the scores while training (Shazeer 2017, equation 4)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from spikingmoe.shapes import Scores


def add_noise(scores: Scores, raw_scale: Tensor) -> Scores:
    """scores + N(0, 1) softplus(raw_scale), from torch's global generator; shapes (..., E)."""
    return scores + torch.randn_like(scores) * F.softplus(raw_scale)
