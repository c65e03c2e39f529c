"""Weights on the grid of so many bits, as the quantised non-spiking twin has them."""

from __future__ import annotations

import copy

import torch
from torch import nn

from spikingmoe.model import SpikingTransformer

WEIGHT_BITS = 8  # as the spiking network's in fixed point


@torch.no_grad()
def with_rounded_weights(model: SpikingTransformer, bits: int = WEIGHT_BITS) -> SpikingTransformer:
    """A copy whose convolutions and linear maps have weights of `bits` bits, sign included.

    Symmetric, one scale per output channel, rounded after training: w <- s round(w / s) with
    s = max|w| / (2**(bits - 1) - 1). A batch norm behind it scales the same channels, so folding it
    in changes nothing. Biases and norms stay, as they are added in the accumulator's width.

    Raises:
        ValueError: for less than 2 bits.
    """
    if bits < 2:
        raise ValueError(f"weight bits={bits}; use at least 2, sign included")
    rounded, top = copy.deepcopy(model), 2 ** (bits - 1) - 1
    for module in rounded.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            flat = module.weight.flatten(1)
            scale = (
                flat.abs().amax(dim=1, keepdim=True).clamp(min=torch.finfo(flat.dtype).tiny) / top
            )
            module.weight.copy_(((flat / scale).round() * scale).view_as(module.weight))
    return rounded
