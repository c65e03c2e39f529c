"""Batch norm folded into weights and biases, in float64."""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from spikingmoe.layers.gated_norm import GatedBatchNorm
from spikingmoe.layers.linear import LinearNorm

Folded = tuple[np.ndarray, np.ndarray]  # (weight, bias)


def to_numpy(tensor: Tensor) -> np.ndarray:
    """float64 copy."""
    return tensor.detach().double().cpu().numpy().copy()


def norm_affine(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> Folded:
    """(scale, shift) with BN(x) = scale * x + shift, from the running statistics."""
    mean, var = norm.running_mean, norm.running_var
    assert mean is not None
    assert var is not None
    scale = to_numpy(norm.weight) / np.sqrt(to_numpy(var) + norm.eps)
    return scale, to_numpy(norm.bias) - to_numpy(mean) * scale


def fold_linear(layer: LinearNorm) -> Folded:
    """BN(W x) as W' x + b'; W' is (D_out, D_in)."""
    scale, shift = norm_affine(layer.norm)
    return to_numpy(layer.linear.weight) * scale[:, None], shift


def fold_conv(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Folded:
    """BN(conv(x)) as conv'(x) + b'."""
    scale, shift = norm_affine(norm)
    return to_numpy(conv.weight) * scale[:, None, None, None], shift


def fold_expert(weight: Tensor, norm: GatedBatchNorm, expert: int) -> Folded:
    """One expert's g BN(W x) as W' x + b' g."""
    scale = to_numpy(norm.weight[expert]) / np.sqrt(to_numpy(norm.running_var[expert]) + norm.eps)
    shift = to_numpy(norm.bias[expert]) - to_numpy(norm.running_mean[expert]) * scale
    return to_numpy(weight[expert]) * scale[:, None], shift
