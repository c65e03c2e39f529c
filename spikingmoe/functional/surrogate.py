"""Surrogate derivatives by name, from `snntorch.surrogate`."""

from __future__ import annotations

from typing import Any

import torch
from snntorch import surrogate as snn_surrogate

from spikingmoe.config import Surrogate
from spikingmoe.functional.lif import SpikeFunction

SLOPE = 25


class SteadySigmoid(torch.autograd.Function):
    """Step forward; backward d/du sigmoid(k u) = k s (1 - s) with s = sigmoid(k u) and slope k = 25.

    snnTorch computes the same derivative as k exp(-k u) / (exp(-k u) + 1)^2, which in float32 is
    inf / inf, no number, for membranes 3.6 and more below the threshold.
    """

    @staticmethod
    def forward(ctx: Any, u: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(u)
        return (u > 0).to(u.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> torch.Tensor:
        (u,) = ctx.saved_tensors
        s = torch.sigmoid(SLOPE * u)
        return grads[0] * SLOPE * s * (1 - s)


def make_surrogate(name: Surrogate) -> SpikeFunction:
    """The spike function (u - threshold > 0) whose derivative is replaced.

    atan: Fang 2021, alpha 2.  fast_sigmoid: Zenke and Ganguli 2018, slope 25.  sigmoid: slope 25.
    """
    if name == "atan":
        return snn_surrogate.atan(alpha=2.0)
    if name == "fast_sigmoid":
        return snn_surrogate.fast_sigmoid(slope=SLOPE)
    if name == "sigmoid":
        return SteadySigmoid.apply
    raise ValueError(f"unknown surrogate {name!r}; use 'atan', 'fast_sigmoid' or 'sigmoid'")
