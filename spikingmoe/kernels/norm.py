"""Batch norm over rows with the channels on the last axis, as one differentiable operation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spikingmoe.kernels.backends import backend_of
from spikingmoe.kernels.host import to_device


@dataclass(frozen=True, kw_only=True)
class Moments:
    """What a batch norm subtracts and divides by.

    Attributes:
        mean, var: (C,), or (E, C) with a norm per expert.
        own: whether they are statistics of the very rows that are normalised, so that gradients pass
            through them; (with a norm per expert, of which experts).
    """

    mean: Tensor
    var: Tensor
    eps: float
    own: bool | tuple[bool, ...]

    @property
    def rstd(self) -> Tensor:
        """1 / sqrt(var + eps), float64."""
        return (self.var.double() + self.eps).rsqrt()


def own_moments(x: Tensor, eps: float) -> Moments:
    """Mean and biased variance of x (..., C) over all axes but the last."""
    mean, var = backend_of(x).norm_statistics(x.detach().contiguous())
    return Moments(mean=mean, var=var, eps=eps, own=True)


def affine_map(weight: Tensor, bias: Tensor, moments: Moments) -> tuple[Tensor, Tensor]:
    """(scale, shift) float32 with BN(x) = scale x + shift."""
    scale = weight.double() * moments.rstd
    shift = bias.double() - moments.mean.double() * scale
    return scale.float(), shift.float()


def gradient_factors(
    scale: Tensor,
    moments: Moments,
    sum_grad: Tensor,
    sum_grad_x: Tensor,
    rows: int | Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """a, b, c float32 with dL/dx = a dL/dy + b x + c for y = BN(x) (Ioffe 2015).

    Args:
        sum_grad, sum_grad_x: sums over rows of dL/dy and of dL/dy (x - mean).
        rows: number of rows, or (E, 1) rows of each expert.
    """
    a, mean = scale.double(), moments.mean.double()
    if isinstance(moments.own, tuple):
        own = to_device([float(o) for o in moments.own], scale)[:, None]
    else:
        own = float(moments.own)
    b = -own * a * moments.rstd.square() * sum_grad_x / rows
    c = -own * a * sum_grad / rows - b * mean
    return a.float(), b.float(), c.float()


def norm_backward(
    g: Tensor,
    x: Tensor,
    scale: Tensor,
    moments: Moments,
    sum_grad: Tensor,
    sum_grad_x: Tensor,
    sizes: list[int],
    out: Tensor,
) -> None:
    """out = dL/dx of a norm per expert, from g = dL/dy (rows, C) ordered by expert; may be g itself.

    Args:
        sum_grad, sum_grad_x: (E, C), see `gradient_factors`. sizes: rows of each expert.
    """
    rows = to_device([float(max(1, size)) for size in sizes], scale)[:, None]
    factors = gradient_factors(scale, moments, sum_grad, sum_grad_x, rows)
    parts = zip(g.split(sizes), x.split(sizes), out.split(sizes), strict=True)
    for expert, (g_e, x_e, out_e) in enumerate(parts):
        if len(x_e):
            backend_of(x).norm_combine(g_e, x_e, [f[expert] for f in factors], out_e)


def fused_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    moments: Moments,
    *,
    sizes: list[int],
    gates: Tensor | None = None,
) -> Tensor:
    """BN(x), times gates that are all 1, float32.

    Args:
        x: (rows, C), ordered by expert.
        weight, bias: (E, C), a norm per expert (one for plain batch norm).
        sizes: rows of each expert.
        gates: (rows,) of 1, whose gradient is wanted; or None.
    """
    return _Norm.apply(x, weight, bias, gates, moments, sizes)  # type: ignore[return-value]


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        gates: Tensor | None,
        moments: Moments,
        sizes: list[int],
    ) -> Tensor:
        x = x.contiguous()
        scale, shift = affine_map(weight, bias, moments)
        ctx.save_for_backward(x, weight, scale, shift)
        ctx.moments, ctx.sizes, ctx.gated = moments, sizes, gates is not None
        return _normalised(x, scale, shift, sizes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale, shift = ctx.saved_tensors
        moments: Moments = ctx.moments
        backend = backend_of(x)
        g = grads[0].contiguous().float()
        grad_gates = None
        if ctx.gated and ctx.needs_input_grad[3]:
            grad_gates = backend.row_products(g, _normalised(x, scale, shift, ctx.sizes))
        sums = scale.new_zeros(2, *scale.shape, dtype=torch.float64)
        mean = moments.mean.float().view(scale.shape)
        parts = list(zip(g.split(ctx.sizes), x.split(ctx.sizes), strict=True))
        for expert, (g_e, x_e) in enumerate(parts):
            if len(x_e):
                sums[0, expert], sums[1, expert] = backend.norm_gradient_sums(
                    g_e, x_e, mean[expert]
                )
        grad = torch.empty_like(x)
        norm_backward(g, x, scale, moments, sums[0], sums[1], ctx.sizes, grad)
        grad_weight = (sums[1] * moments.rstd).to(weight.dtype)
        return grad, grad_weight, sums[0].to(weight.dtype), grad_gates, None, None


def _normalised(x: Tensor, scale: Tensor, shift: Tensor, sizes: list[int]) -> Tensor:
    out = torch.empty_like(x, dtype=torch.float32)
    parts = zip(x.split(sizes), out.split(sizes), scale, shift, strict=True)
    for x_e, out_e, scale_e, shift_e in parts:
        if len(x_e):
            backend_of(x).norm_apply(x_e, scale_e, shift_e, out_e)
    return out
