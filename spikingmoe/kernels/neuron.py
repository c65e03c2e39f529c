"""LIF neurons, and batch norm with the neurons behind it, as single differentiable operations.

Both keep nothing for the backward pass but their input: membranes (and normalised currents) are
computed again, block by block, while they lie in the processor's cache.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from spikingmoe.kernels import cpu
from spikingmoe.kernels.constants import NeuronConstants
from spikingmoe.kernels.norm import Moments, affine_map, gradient_factors


def can_fuse(x: Tensor) -> bool:
    """Whether there is a kernel for this tensor: its device, and float32 or bfloat16.

    Not while `torch.compile` looks on, which fuses the plain form itself, nor for tensors that
    have no memory of their own (fake ones).
    """
    if torch.compiler.is_compiling() or type(x) not in (Tensor, nn.Parameter):
        return False
    return x.dtype in cpu.FORMATS and x.device.type == "cpu" and x.numel() > 0 and cpu.available()


def spike_dtype(x: Tensor) -> torch.dtype:
    """Of the spikes of neurons whose current is x: what the matrices behind them are multiplied in."""
    if torch.is_autocast_enabled(x.device.type):
        wanted = torch.get_autocast_dtype(x.device.type)
        return wanted if wanted in cpu.FORMATS else x.dtype
    return x.dtype


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
        spikes = cpu.lif_forward(x.view(len(x), -1, 1), len(x), None, neurons, dtype)
        return spikes.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        flat = (len(x), -1, 1)
        grad_spikes = grads[0].contiguous().view(flat)
        grad, _, _ = cpu.lif_backward(x.view(flat), grad_spikes, None, ctx.neurons)
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
        spikes = cpu.lif_forward(rows, steps, (scale, shift), neurons, dtype)
        return spikes.view(steps, *x.shape[1:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale, shift = ctx.saved_tensors
        moments: Moments = ctx.moments
        rows = x.view(len(x), -1, x.shape[-1])
        grad_spikes = grads[0].contiguous().view(len(grads[0]), *rows.shape[1:])
        affine = (scale, shift, moments.mean.float())
        grad, sum_grad, sum_grad_x = cpu.lif_backward(rows, grad_spikes, affine, ctx.neurons)
        assert sum_grad is not None
        assert sum_grad_x is not None
        factors = gradient_factors(scale, moments, sum_grad, sum_grad_x, x.numel() // x.shape[-1])
        cpu.norm_combine(grad, rows, factors, grad)
        grad_weight = (sum_grad_x * moments.rstd).to(weight.dtype)
        return grad.view(x.shape), grad_weight, sum_grad.to(weight.dtype), *[None] * 4
