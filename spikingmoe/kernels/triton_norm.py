"""Batch norm over rows in Triton: the affine map and its gradient, as in norm.cpp."""

# Triton compiles what follows in a language of its own, whose types are not Python's:
# pyright: reportArgumentType=false, reportCallIssue=false, reportGeneralTypeIssues=false
# pyright: reportIndexIssue=false, reportMissingImports=false

from __future__ import annotations

import triton
import triton.language as tl

from spikingmoe.kernels.triton_neurons import load_affine, load_current, tile


@triton.jit
def norm_apply(x, scale, shift, out, rows, channels, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr):
    """out = scale_c x + shift_c."""
    at, inside, channel, _ = tile(rows, channels, BLOCK_R, BLOCK_C)
    a, b = load_affine(scale, shift, channel, channels, True)
    value = load_current(x, at, inside, a, b, True)
    tl.store(out + at, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def norm_gradient_sums(
    g, x, mean, sums, rows, channels, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr
):
    """sums (blocks, 2, channels) of g and of g (x - mean)."""
    at, inside, channel, block = tile(rows, channels, BLOCK_R, BLOCK_C)
    m = tl.load(mean + channel, mask=channel < channels, other=0.0)
    grad = tl.load(g + at, mask=inside, other=0.0).to(tl.float32)
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    place = sums + 2 * block * channels + channel
    tl.store(place, tl.sum(grad, axis=0), mask=channel < channels)
    total_x = tl.sum(grad * (value - m[None, :]), axis=0)
    tl.store(place + channels, total_x, mask=channel < channels)


@triton.jit
def norm_combine(g, x, a, b, c, out, rows, channels, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr):
    """out = a_c g + b_c x + c_c; `out` may be g."""
    at, inside, channel, _ = tile(rows, channels, BLOCK_R, BLOCK_C)
    of_g, of_x = load_affine(a, b, channel, channels, True)
    rest = tl.load(c + channel, mask=channel < channels, other=0.0)
    grad = tl.load(g + at, mask=inside, other=0.0).to(tl.float32)
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    result = of_g[None, :] * grad + of_x[None, :] * value + rest[None, :]
    tl.store(out + at, result.to(out.dtype.element_ty), mask=inside)
