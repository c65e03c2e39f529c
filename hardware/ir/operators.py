"""Synapses as fast operators: many messages in, their currents out, as matrix products.

An integer network is computed with floats, whose matrix products are some 35 times faster than those of
integers; `hardware.ir.number_formats` says in which ones no sum is rounded.

Messages that are all zero are not multiplied: a silent source costs nothing, a position where nothing
was sent (a token whose expert is closed) has no row in the product. Where few neurons are active, only
their weights are added up: a product costs the same however few they are, but each event costs as much as
tens of its multiplications, which a processor takes in large portions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from hardware.ir.arithmetic import shift
from hardware.ir.graph import SpikeGraph
from hardware.ir.synapses import (
    AnySynapse,
    Conv2d,
    Dense,
    Shape,
    Sparse,
    conv_output_shape,
    to_matrix,
)

#: (rows, *source shape) messages, bool or numbers -> (rows, n_target) currents in the operator's format.
Operator = Callable[[np.ndarray], np.ndarray]

PATCH_BYTES = 8 * 2**20  # of the patches of a convolution that are made at a time: within the cache
FEW_WORDS = 32  # up to so many a loop over columns beats a reduction over short rows
SPARSE_ROWS = 0.6  # share of rows with a message below which picking them out pays
#: Share of active neurons below which adding up their weights is faster than a product, by bytes per
#: number; and the multiplications that a product must save for it to pay. Measured with OpenBLAS's AVX-512
#: kernels: products of 64 to 1,024 rows break even at 2 to 5 % in float64, at 1 to 3 % in float32 (with its
#: SSE3 kernels at three times as many); those of a few rows, which wait for the weights to come from memory,
#: at 15 to 40 %. Listing the events takes 35 us.
SPARSE_EVENTS = {8: 0.03, 4: 0.015}
FEW_ROWS, SPARSE_EVENTS_OF_FEW_ROWS = 4, 0.15
LISTING = 250_000
SPARSE_COLUMNS = (
    0.1  # the same for listed connections (600,000 of them; up to 0.4 for ten times as many)
)


def make_operator(graph: SpikeGraph, synapse: AnySynapse, dtype: np.dtype) -> Operator:
    """The fastest form of a synapse for batches of messages, computed in `dtype`."""
    source = graph.populations[synapse.source].shape
    target = graph.populations[synapse.target].shape
    scaled = synapse.weight * 2.0**synapse.exponent
    if synapse.exponent == 0 or np.array_equal(scaled, np.rint(scaled)):  # no sum is floored
        return make_sums(replace(synapse, weight=scaled), source, target, dtype)
    sums = make_sums(synapse, source, target, dtype)
    return lambda messages: shift(sums(messages), synapse.exponent)


def make_sums(synapse: AnySynapse, source: Shape, target: Shape, dtype: np.dtype) -> Operator:
    """`make_operator` from the shapes of the two populations; the exponent is not applied."""
    if isinstance(synapse, Dense):
        return _on_rows(_product(synapse.weight.T, dtype), math.prod(source))
    if isinstance(synapse, Conv2d) and _is_pointwise(synapse):
        return _on_rows(_product(synapse.weight[:, :, 0, 0].T, dtype), source[-1])
    if isinstance(synapse, Conv2d) and synapse.groups == 1:
        return _convolution(synapse, source, dtype)
    if isinstance(synapse, Conv2d) and synapse.weight.shape[:2] == (synapse.groups, 1):
        return _depthwise(synapse, source, dtype)
    if isinstance(synapse, Sparse) and _is_one_to_one(synapse, source, target):
        return _scaled(synapse.weight[np.argsort(synapse.rows)].astype(dtype))
    return _listed(csr_matrix(to_matrix(synapse, source, target), dtype=dtype), math.prod(target))


def _is_pointwise(synapse: Conv2d) -> bool:
    return (
        synapse.weight.shape[2:] == (1, 1)
        and synapse.stride == (1, 1)
        and synapse.padding == (0, 0)
        and synapse.groups == 1
    )


def _is_one_to_one(synapse: Sparse, source: Shape, target: Shape) -> bool:
    whole = len(synapse.rows) == math.prod(target) == math.prod(source)
    return whole and np.array_equal(synapse.rows, synapse.columns)


def _scaled(weight: np.ndarray) -> Operator:
    same = weight[:1] if np.all(weight == weight[0]) else weight

    def apply(messages: np.ndarray) -> np.ndarray:
        return np.multiply(messages.reshape(len(messages), -1), same, dtype=weight.dtype)

    return apply


def _product(weight: np.ndarray, dtype: np.dtype) -> Operator:
    """(rows, n_in) @ (n_in, n_out), of what was sent alone."""
    weight = np.ascontiguousarray(weight, dtype=dtype)

    def apply(rows: np.ndarray) -> np.ndarray:
        active = np.count_nonzero(rows)
        if active == 0:
            return np.zeros((len(rows), weight.shape[1]), dtype)
        few_rows = len(rows) <= FEW_ROWS
        few = SPARSE_EVENTS_OF_FEW_ROWS if few_rows else SPARSE_EVENTS[dtype.itemsize]
        if active < few * rows.size and len(rows) * weight.size > LISTING:
            return _listed_events(rows, dtype) @ weight
        sent = _any_in_row(rows)
        if np.count_nonzero(sent) > SPARSE_ROWS * len(rows):
            return rows.astype(dtype, copy=False) @ weight
        out = np.zeros((len(rows), weight.shape[1]), dtype)
        out[sent] = rows[sent].astype(dtype, copy=False) @ weight
        return out

    return apply


def _any_in_row(rows: np.ndarray) -> np.ndarray:
    """(rows,) whether a row holds anything but zeros; booleans are looked at eight at a time."""
    rows = np.ascontiguousarray(rows)
    width = rows.shape[1] * rows.itemsize
    if rows.dtype == bool and width % 8 == 0:
        rows = rows.view(np.uint64)
    if rows.shape[1] <= FEW_WORDS:
        sent = rows[:, 0] != 0
        for column in range(1, rows.shape[1]):
            sent |= rows[:, column] != 0
        return sent
    return rows.any(axis=1)


def _listed_events(rows: np.ndarray, dtype: np.dtype) -> Any:
    """The messages that are not zero as a sparse matrix (rows, n_in)."""
    places = np.flatnonzero(rows)
    if rows.dtype == bool:
        values = np.ones(len(places), dtype)
    else:
        values = rows.ravel()[places].astype(dtype, copy=False)
    ends = np.zeros(len(rows) + 1, np.int32)
    np.cumsum(np.count_nonzero(rows, axis=1), out=ends[1:])
    columns = (places % rows.shape[1]).astype(np.int32)
    return csr_matrix((values, columns, ends), shape=rows.shape, copy=False)


def _on_rows(product: Operator, width: int) -> Operator:
    """`product` on each vector of `width` channels of a batch of messages."""

    def apply(messages: np.ndarray) -> np.ndarray:
        return product(messages.reshape(-1, width)).reshape(len(messages), -1)

    return apply


def _listed(matrix: csr_matrix, targets: int) -> Operator:
    """Listed connections; of few events their columns alone are added up."""
    by_source = csr_matrix(matrix.T) if matrix.nnz > LISTING else None

    def apply(messages: np.ndarray) -> np.ndarray:
        flat = messages.reshape(len(messages), -1)
        active = np.count_nonzero(flat)
        if active == 0:
            return np.zeros((len(flat), targets), matrix.dtype)
        if by_source is not None and active < SPARSE_COLUMNS * flat.size:
            return (_listed_events(flat, matrix.dtype) @ by_source).toarray()
        return np.ascontiguousarray((matrix @ np.ascontiguousarray(flat.T, matrix.dtype)).T)

    return apply


class _Taps:
    """Where each tap of a kernel finds its values in a padded map."""

    def __init__(self, synapse: Conv2d, shape: Shape) -> None:
        self.shape, self.padding = shape, synapse.padding
        self.stride, self.dilation = synapse.stride, synapse.dilation
        self.kernel = synapse.weight.shape[2:]
        self.out = conv_output_shape(shape, synapse)
        kernel_h, kernel_w = synapse.weight.shape[2:]
        self.places = [
            (y, x, *(_window(synapse, axis, place, self.out) for axis, place in ((0, y), (1, x))))
            for y in range(kernel_h)
            for x in range(kernel_w)
        ]

    def pad(self, maps: np.ndarray) -> np.ndarray:
        """(rows, H, W, C) with zeros around."""
        high, wide = self.padding
        if high == wide == 0:
            return maps
        rows, height, width, channels = maps.shape
        padded = np.zeros((rows, height + 2 * high, width + 2 * wide, channels), maps.dtype)
        padded[:, high : high + height, wide : wide + width] = maps
        return padded

    @property
    def patch(self) -> Shape:
        """Axes of a patch: kernel rows, then the columns with their channels, in one run if they touch."""
        (kernel_h, kernel_w), channels = self.kernel, self.shape[2]
        touch = self.dilation[1] == 1
        return (kernel_h, kernel_w * channels) if touch else (kernel_h, kernel_w, channels)

    def patches(self, padded: np.ndarray) -> np.ndarray:
        """A view (rows, H, W, *patch) of padded maps (rows, H', W', C): what each output looks at."""
        padded = np.ascontiguousarray(padded)
        rows, row, pixel, channel = padded.strides
        steps = (rows, row * self.stride[0], pixel * self.stride[1], row * self.dilation[0])
        inside = (channel,) if len(self.patch) == 2 else (pixel * self.dilation[1], channel)
        return np.lib.stride_tricks.as_strided(
            padded, (len(padded), *self.out[:2], *self.patch), (*steps, *inside), writeable=False
        )


def _window(synapse: Conv2d, axis: int, place: int, out: Shape) -> slice:
    first = place * synapse.dilation[axis]
    return slice(first, first + synapse.stride[axis] * (out[axis] - 1) + 1, synapse.stride[axis])


def _convolution(synapse: Conv2d, shape: Shape, dtype: np.dtype) -> Operator:
    """All patches of a map as rows of one product."""
    taps = _Taps(synapse, shape)
    height, width, channels_out = taps.out
    n_taps, channels = len(taps.places), shape[2]
    product = _product(
        synapse.weight.transpose(2, 3, 1, 0).reshape(n_taps * channels, channels_out), dtype
    )
    at_a_time = max(1, PATCH_BYTES // (height * width * n_taps * channels * dtype.itemsize))

    def apply(messages: np.ndarray) -> np.ndarray:
        out = np.empty((len(messages), height * width * channels_out), dtype)
        maps = messages.reshape(-1, *shape)
        shape_of_patches = (min(at_a_time, len(maps)), height, width, *taps.patch)
        patches = np.empty(shape_of_patches, messages.dtype)
        for start in range(0, len(maps), at_a_time):
            some = maps[start : start + at_a_time]
            if not some.any():
                out[start : start + at_a_time] = 0
                continue
            now = patches[: len(some)]
            np.copyto(now, taps.patches(taps.pad(some)))
            rows = now.reshape(-1, n_taps * channels)
            out[start : start + at_a_time] = product(rows).reshape(len(some), -1)
        return out

    return apply


def _depthwise(synapse: Conv2d, shape: Shape, dtype: np.dtype) -> Operator:
    """One multiplication per tap: each channel has a kernel of its own."""
    taps = _Taps(synapse, shape)
    kernel = np.ascontiguousarray(synapse.weight[:, 0].transpose(1, 2, 0), dtype=dtype)

    def apply(messages: np.ndarray) -> np.ndarray:
        maps = taps.pad(messages.reshape(-1, *shape)).astype(dtype, copy=False)
        out = np.zeros((len(maps), *taps.out), dtype)
        for y, x, high, wide in taps.places:
            out += maps[:, high, wide] * kernel[y, x]
        return out.reshape(len(maps), -1)

    return apply
