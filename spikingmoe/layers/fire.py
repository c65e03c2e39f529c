"""Batch norm, and batch norm with the neurons behind it, fused where that is possible."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spikingmoe.kernels import Moments, can_fuse, fused_norm, fused_norm_lif, own_moments
from spikingmoe.kernels.constants import check_steps
from spikingmoe.layers.hooks import has_hooks
from spikingmoe.layers.neuron import LIF

Norm = nn.BatchNorm1d | nn.BatchNorm2d


def normalise(norm: Norm, x: Tensor) -> Tensor:
    """BN(x) with the channels on the last axis; statistics over all other axes. (..., C) -> the same."""
    if _has_kernel(norm, x):
        rows = x.reshape(-1, x.shape[-1])
        affine = (norm.weight[None], norm.bias[None])
        return fused_norm(rows, *affine, _moments(norm, rows), sizes=[len(rows)]).view(x.shape)
    if isinstance(norm, nn.BatchNorm2d):
        return norm(x.flatten(0, -4).movedim(-1, 1)).movedim(1, -1).reshape(x.shape)
    return norm(x.flatten(0, -2)).view(x.shape)


def fire(neuron: nn.Module, norm: Norm, x: Tensor, *, steps: int | None = None) -> Tensor:
    """neuron(BN(x)) with the channels on the last axis.

    One operation where there is a kernel for it (`spikingmoe.kernels`); the modules one after the other
    elsewhere, and wherever a hook wants to see what goes in or out of them.

    Args:
        x: (T, ..., C), or (1, ..., C) for a current that is the same at each of `steps` steps.

    Returns:
        (steps, ..., C).
    """
    steps = len(x) if steps is None else steps
    check_steps(x, steps)
    if isinstance(neuron, LIF) and neuron.has_kernel and _has_kernel(norm, x):
        moments = _moments(norm, x)
        return fused_norm_lif(x, steps, norm.weight, norm.bias, moments, neuron.constants)
    current = normalise(norm, x)
    return neuron(current.expand(steps, *current.shape[1:]))


def _has_kernel(norm: Norm, x: Tensor) -> bool:
    return (
        type(norm) in (nn.BatchNorm1d, nn.BatchNorm2d)  # others, as SyncBatchNorm, compute more
        and norm.affine
        and norm.weight.dtype == torch.float32  # others keep their own arithmetic
        and norm.running_mean is not None
        and norm.momentum is not None
        and not has_hooks(norm)
        and x.numel() > x.shape[-1]  # of a single row there is no variance: torch says so
        and can_fuse(x)
    )


def _moments(norm: Norm, x: Tensor) -> Moments:
    """What the norm uses in its mode; while training its running statistics take part of it."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    assert norm.momentum is not None
    if not norm.training:
        return Moments(
            mean=norm.running_mean.clone(), var=norm.running_var.clone(), eps=norm.eps, own=False
        )
    moments = own_moments(x, norm.eps)
    rows = x.numel() // x.shape[-1]
    unbiased = moments.var * (rows / (rows - 1))
    norm.running_mean.lerp_(moments.mean.to(norm.running_mean), norm.momentum)
    norm.running_var.lerp_(unbiased.to(norm.running_var), norm.momentum)
    norm.num_batches_tracked.add_(1)
    return moments
