"""The activation of the quantised non-spiking twin: ReLU onto a few evenly spaced levels."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class QuantisedReLU(nn.Module):
    """ReLU rounded to 2**bits levels with a learned step (LSQ, Esser 2020, arXiv 1902.08153).

        y = s round(clip(x / s, 0, Q)),   Q = 2**bits - 1

    Backward (equations 3 and 5 there) the rounding counts as the identity, so x has gradient 1 within
    the range and 0 outside; the step has round(x / s) - x / s within, Q above and 0 below, times
    1 / sqrt(n Q) with n activations per sample. We differ in the step's first value, 2 E|y| / sqrt(Q)
    of currents of mean 0 and variance 1, as batch norm gives them, where the paper takes
    the first batch: so it depends on no data and all devices begin alike.

    Shapes: any -> the same; axis 1 is the batch.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits, self.top = bits, 2**bits - 1
        self.step = nn.Parameter(torch.tensor(2 / math.sqrt(2 * math.pi * self.top)))

    def forward(self, x: Tensor) -> Tensor:
        share = 1 / math.sqrt(self.top * max(1, x.numel() // max(1, x.shape[1])))
        scaled = self.step * share
        step = (scaled + (self.step - scaled).detach()).clamp(min=torch.finfo(x.dtype).tiny)
        level = (x / step).clamp(0, self.top)
        return (level + (level.round() - level).detach()) * step

    def extra_repr(self) -> str:
        return f"bits={self.bits}"
