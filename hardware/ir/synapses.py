"""Synapses of the intermediate representation: static weights between two populations.

A synapse delivers  current = (W x) * 2^exponent  after `delay` steps; with a negative exponent the
accumulated integer sum is shifted, which floors (Loihi's rule). In float graphs the exponent is 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix

Shape = tuple[int, ...]
Expert = tuple[str, int]  # (the router that gates it, index of the expert)


@dataclass(frozen=True, kw_only=True, eq=False)
class Dense:
    """All-to-all: W x with `weight` of shape (n_target, n_source), both sides flattened.

    `expert` marks synapses of which only K of E carry spikes at a step (for overflow bounds).
    """

    source: str
    target: str
    weight: np.ndarray
    delay: int = 1
    exponent: int = 0
    expert: Expert | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Conv2d:
    """2-D cross-correlation with `weight` (C_out, C_in / groups, kernel_h, kernel_w) on maps (H, W, C)."""

    source: str
    target: str
    weight: np.ndarray
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    delay: int = 1
    exponent: int = 0
    expert: Expert | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Sparse:
    """Listed connections: `weight[k]` from neuron `columns[k]` of the source to `rows[k]` of the target."""

    source: str
    target: str
    rows: np.ndarray
    columns: np.ndarray
    weight: np.ndarray
    delay: int = 1
    exponent: int = 0
    expert: Expert | None = None


AnySynapse = Dense | Conv2d | Sparse


def conv_output_shape(shape: Shape, synapse: Conv2d) -> Shape:
    """Target shape (H', W', C_out) of a convolution over a map of `shape` (H, W, C)."""
    out = []
    for axis in (0, 1):
        reach = synapse.dilation[axis] * (synapse.weight.shape[2 + axis] - 1) + 1
        out.append((shape[axis] + 2 * synapse.padding[axis] - reach) // synapse.stride[axis] + 1)
    return (out[0], out[1], synapse.weight.shape[0])


def to_matrix(synapse: AnySynapse, source_shape: Shape, target_shape: Shape) -> csr_matrix:
    """The synapse as a sparse matrix (n_target, n_source); stored zeros of weights are dropped."""
    n_source = int(np.prod(source_shape, dtype=np.int64))
    n_target = int(np.prod(target_shape, dtype=np.int64))
    if isinstance(synapse, Dense):
        return csr_matrix(synapse.weight)
    if isinstance(synapse, Sparse):
        rows, columns, values = synapse.rows, synapse.columns, synapse.weight
    else:
        rows, columns, values = _conv_coordinates(synapse, source_shape, target_shape)
    entries = coo_matrix((values, (rows, columns)), shape=(n_target, n_source))
    matrix = csr_matrix(entries)
    matrix.eliminate_zeros()
    return matrix


def _conv_coordinates(
    synapse: Conv2d, source_shape: Shape, target_shape: Shape
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    height, width, channels = source_shape
    height_out, width_out, channels_out = target_shape
    per_group_in, per_group_out = channels // synapse.groups, channels_out // synapse.groups
    kernel_h, kernel_w = synapse.weight.shape[2:]
    c_out, c_in, k_h, k_w, y_out, x_out = np.meshgrid(
        np.arange(channels_out),
        np.arange(per_group_in),
        np.arange(kernel_h),
        np.arange(kernel_w),
        np.arange(height_out),
        np.arange(width_out),
        indexing="ij",
    )
    y_in = y_out * synapse.stride[0] - synapse.padding[0] + k_h * synapse.dilation[0]
    x_in = x_out * synapse.stride[1] - synapse.padding[1] + k_w * synapse.dilation[1]
    c_source = (c_out // per_group_out) * per_group_in + c_in
    inside = (y_in >= 0) & (y_in < height) & (x_in >= 0) & (x_in < width)
    rows = ((y_out * width_out + x_out) * channels_out + c_out)[inside]
    columns = ((y_in * width + x_in) * channels + c_source)[inside]
    return rows, columns, synapse.weight[c_out[inside], c_in[inside], k_h[inside], k_w[inside]]


def one_to_one(source: str, target: str, n: int, value: float = 1.0) -> Sparse:
    """Neuron i drives neuron i with weight `value`."""
    index = np.arange(n)
    return Sparse(
        source=source, target=target, rows=index, columns=index, weight=np.full(n, float(value))
    )
