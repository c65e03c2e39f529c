"""A linear map per expert, on rows that are ordered by expert."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable


class _GroupedLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, sizes: list[int]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.sizes = sizes
        y = x.new_empty(len(x), weight.shape[1])
        for x_e, y_e, weight_e in _experts(sizes, x, y, weight):
            torch.mm(x_e, weight_e.T, out=y_e)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad_y = grads[0].contiguous()
        grad_x, grad_weight = torch.empty_like(x), torch.zeros_like(weight)
        for x_e, g_e, gx_e, weight_e, gw_e in _experts(
            ctx.sizes, x, grad_y, grad_x, weight, grad_weight
        ):
            torch.mm(g_e, weight_e, out=gx_e)
            torch.mm(g_e.T, x_e, out=gw_e)
        return grad_x, grad_weight, None


def grouped_linear(
    x: Float[Tensor, "rows inputs"], weight: Float[Tensor, "E outputs inputs"], sizes: list[int]
) -> Float[Tensor, "rows outputs"]:
    """W_e x for each row x of expert e; in the dtype of autocast where that is on.

    Args:
        sizes: rows of each expert, which add up to all.
    """
    device = x.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
        x, weight = x.to(dtype), weight.to(dtype)
    return _GroupedLinear.apply(x, weight, sizes)  # type: ignore[return-value]


def _experts(sizes: list[int], *tensors: Tensor) -> list[list[Tensor]]:
    """Each tensor's part per expert that has rows; weights (3 axes) are taken apart by expert."""
    parts = [t.unbind() if t.ndim == 3 else t.split(sizes) for t in tensors]
    return [part for size, *part in zip(sizes, *parts, strict=True) if size]
