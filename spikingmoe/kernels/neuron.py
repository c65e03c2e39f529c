"""LIF neurons, and batch norm with the neurons behind it, as single differentiable operations.

Both keep nothing for the backward pass but their input: membranes (and normalised currents) are
computed again, block by block, while they are at hand.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spikingmoe.kernels.backends import backend_of, spike_dtype
from spikingmoe.kernels.constants import NeuronConstants
from spikingmoe.kernels.norm import Moments, affine_map, gradient_factors


def fused_lif(current: Tensor, neurons: NeuronConstants) -> Tensor:
    """Spikes of `spikingmoe.functional.lif`, (T, ...) -> the same shape, in `spike_dtype`."""
    return _Lif.apply(current, neurons, spike_dtype(current))  # type: ignore[return-value]


def fused_norm_lif(
    x: Tensor, steps: int, weight: Tensor, bias: Tensor, moments: Moments, neurons: NeuronConstants
) -> Tensor:
    """LIF(BN(x)) with the channels on the last axis, (steps, ..., C) in `spike_dtype`.

    Args:
        x: (steps or 1, ..., C); one step is the same current at each of `steps` steps.
        weight, bias: (C,), the norm's affine map.
        moments: what to normalise with.
    """
    return _NormLif.apply(x, weight, bias, steps, moments, neurons, spike_dtype(x))  # type: ignore[return-value]


class _Lif(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, current: Tensor, neurons: NeuronConstants, dtype: torch.dtype) -> Tensor:
        x = current.contiguous()
        ctx.save_for_backward(x)
        ctx.neurons = neurons
        spikes = backend_of(x).lif_forward(x.view(len(x), -1, 1), len(x), None, neurons, dtype)
        return spikes.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        flat = (len(x), -1, 1)
        grad_spikes = grads[0].contiguous().view(flat)
        grad, _, _ = backend_of(x).lif_backward(x.view(flat), grad_spikes, None, ctx.neurons)
        return grad.view(x.shape), None, None


class _NormLif(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        steps: int,
        moments: Moments,
        neurons: NeuronConstants,
        dtype: torch.dtype,
    ) -> Tensor:
        x = x.contiguous()
        scale, shift = affine_map(weight, bias, moments)
        ctx.save_for_backward(x, weight, scale, shift)
        ctx.moments, ctx.neurons = moments, neurons
        rows = x.view(len(x), -1, x.shape[-1])
        spikes = backend_of(x).lif_forward(rows, steps, (scale, shift), neurons, dtype)
        return spikes.view(steps, *x.shape[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale, shift = ctx.saved_tensors
        moments: Moments = ctx.moments
        rows = x.view(len(x), -1, x.shape[-1])
        grad_spikes = grads[0].contiguous().view(len(grads[0]), *rows.shape[1:])
        affine = (scale, shift, moments.mean.float())
        grad, sum_grad, sum_grad_x = backend_of(x).lif_backward(
            rows, grad_spikes, affine, ctx.neurons
        )
        assert sum_grad is not None
        assert sum_grad_x is not None
        factors = gradient_factors(scale, moments, sum_grad, sum_grad_x, x.numel() // x.shape[-1])
        backend_of(x).norm_combine(grad, rows, factors, grad)
        grad_weight = (sum_grad_x * moments.rstd).to(weight.dtype)
        return grad.view(x.shape), grad_weight, sum_grad.to(weight.dtype), *[None] * 4
