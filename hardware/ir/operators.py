"""Synapses as fast operators: many messages in, their currents out, as matrix products.

An integer network is computed with floats. That is exact: `number_formats` proves from the weights that no sum
of a population reaches 2^24 (float32) or 2^53 (float64), and matrix products of floats are some 35
times faster than those of integers.

Messages that are all zero are not multiplied: a silent source costs nothing, a position where nothing
was sent (a token whose expert is closed) has no row in the product.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from scipy.sparse import csr_matrix

from hardware.ir.arithmetic import MAX_V, shift
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import LIF, Input, Population, Relay, is_graded, size
from hardware.ir.synapses import AnySynapse, Conv2d, Dense, Shape, Sparse, conv_output_shape

#: (rows, *source shape) messages, of any number format -> (rows, n_target) currents.
Operator = Callable[[np.ndarray], np.ndarray]

EXACT_FLOAT32, EXACT_FLOAT64 = 2**24, 2**53
PATCH_BYTES = 8 * 2**20  # of the patches of a convolution that are made at a time: within the cache
FEW_WORDS = 32  # up to so many a loop over columns beats a reduction over short rows
SPARSE_ROWS = 0.6  # share of rows with a message below which picking them out pays


def make_operator(graph: SpikeGraph, synapse: AnySynapse, dtype: np.dtype) -> Operator:
    """The fastest form of a synapse for batches of messages, computed in `dtype`."""
    scaled = synapse.weight * 2.0**synapse.exponent
    if synapse.exponent and np.array_equal(scaled, np.rint(scaled)):  # then no sum is floored
        return make_operator(graph, replace(synapse, weight=scaled, exponent=0), dtype)
    if synapse.exponent:
        sums = make_operator(graph, replace(synapse, exponent=0), dtype)
        return lambda messages: shift(sums(messages), synapse.exponent)
    shape = graph.populations[synapse.source].shape
    if isinstance(synapse, Dense):
        return _on_rows(_product(synapse.weight.T, dtype), int(np.prod(shape)))
    if isinstance(synapse, Conv2d) and _is_pointwise(synapse):
        return _on_rows(_product(synapse.weight[:, :, 0, 0].T, dtype), shape[-1])
    if isinstance(synapse, Conv2d) and synapse.groups == 1:
        return _convolution(synapse, shape, dtype)
    if isinstance(synapse, Conv2d) and synapse.weight.shape[:2] == (synapse.groups, 1):
        return _depthwise(synapse, shape, dtype)
    if isinstance(synapse, Sparse) and _is_one_to_one(graph, synapse):
        return _scaled(synapse.weight[np.argsort(synapse.rows)].astype(dtype))
    return _listed(csr_matrix(graph.matrix(synapse), dtype=dtype))


def number_formats(graph: SpikeGraph) -> dict[str, np.dtype]:
    """In which numbers each population's input can be summed without an error.

    float64 for float graphs; for whole numbers float32 where no sum can reach 2^24.
    """
    if graph.arithmetic == "float":
        return dict.fromkeys(graph.populations, np.dtype(np.float64))
    sent: dict[str, float] = {}
    formats: dict[str, np.dtype] = {}
    for name in graph.order:
        population = graph.populations[name]
        total = 0.0
        for synapse in graph.incoming(name):
            message = (
                largest_message(population) if synapse.source == name else sent[synapse.source]
            )
            total += largest_row_sum(synapse) * message * 2.0 ** max(synapse.exponent, 0)
        formats[name] = np.dtype(np.float32 if total < EXACT_FLOAT32 else np.float64)
        if isinstance(population, LIF) and not _decays_exactly(population):
            formats[name] = np.dtype(np.float64)
        sent[name] = (
            min(total, MAX_V) if isinstance(population, Relay) else largest_message(population)
        )
    return formats


def _decays_exactly(population: LIF) -> bool:
    """Whether float32 holds the decayed membrane: a power of two; the rule clips at 2^23."""
    mantissa, _ = np.frexp(population.membrane_decay)
    return mantissa in (0.0, 0.5)


def largest_message(population: Population) -> float:
    """Largest magnitude of what a population of a fixed-point graph sends."""
    if isinstance(population, Input) and population.kind == "graded":
        return float(2 ** (population.bits - 1) - 1)
    return float(MAX_V) if is_graded(population) else 1.0


def largest_row_sum(synapse: AnySynapse) -> float:
    """Largest sum of |weight| onto one neuron of the target (an upper bound at the edges of maps)."""
    weight = np.abs(synapse.weight.astype(np.float64))
    if isinstance(synapse, Dense):
        return float(weight.sum(axis=1).max(initial=0.0))
    if isinstance(synapse, Conv2d):
        return float(weight.sum(axis=(1, 2, 3)).max(initial=0.0))
    if not len(weight):
        return 0.0
    return float(np.bincount(synapse.rows, weights=weight).max(initial=0.0))


def _is_pointwise(synapse: Conv2d) -> bool:
    return (
        synapse.weight.shape[2:] == (1, 1)
        and synapse.stride == (1, 1)
        and synapse.padding == (0, 0)
        and synapse.groups == 1
    )


def _is_one_to_one(graph: SpikeGraph, synapse: Sparse) -> bool:
    n = size(graph.populations[synapse.target])
    whole = len(synapse.rows) == n == size(graph.populations[synapse.source])
    return whole and np.array_equal(synapse.rows, synapse.columns)


def _scaled(weight: np.ndarray) -> Operator:
    same = weight[:1] if np.all(weight == weight[0]) else weight

    def apply(messages: np.ndarray) -> np.ndarray:
        return messages.reshape(len(messages), -1).astype(weight.dtype, copy=False) * same

    return apply


def _product(weight: np.ndarray, dtype: np.dtype) -> Operator:
    """(rows, n_in) @ (n_in, n_out), of the rows alone in which something was sent."""
    weight = np.ascontiguousarray(weight, dtype=dtype)

    def apply(rows: np.ndarray) -> np.ndarray:
        sent = _any_in_row(rows)
        share = np.count_nonzero(sent) / max(1, len(sent))
        if share > SPARSE_ROWS:
            return rows.astype(dtype, copy=False) @ weight
        out = np.zeros((len(rows), weight.shape[1]), dtype)
        if share > 0:
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


def _on_rows(product: Operator, width: int) -> Operator:
    """`product` on each vector of `width` channels of a batch of messages."""

    def apply(messages: np.ndarray) -> np.ndarray:
        return product(messages.reshape(-1, width)).reshape(len(messages), -1)

    return apply


def _listed(matrix: csr_matrix) -> Operator:
    n_target = len(matrix.indptr) - 1

    def apply(messages: np.ndarray) -> np.ndarray:
        flat = messages.reshape(len(messages), -1)
        if not flat.any():
            return np.zeros((len(flat), n_target), matrix.dtype)
        return np.ascontiguousarray((matrix @ np.ascontiguousarray(flat.T, matrix.dtype)).T)

    return apply


class _Taps:
    """Where each tap of a kernel finds its values in a padded map."""

    def __init__(self, synapse: Conv2d, shape: Shape) -> None:
        self.shape, self.padding = shape, synapse.padding
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
        patches = np.empty((min(at_a_time, len(maps)), height, width, n_taps, channels), maps.dtype)
        for start in range(0, len(maps), at_a_time):
            some = maps[start : start + at_a_time]
            if not some.any():
                out[start : start + at_a_time] = 0
                continue
            padded, now = taps.pad(some), patches[: len(some)]
            for index, (_, _, high, wide) in enumerate(taps.places):
                now[:, :, :, index] = padded[:, high, wide]
            rows = now.reshape(-1, n_taps * channels)
            out[start : start + at_a_time] = product(rows).reshape(len(some), -1)
        return out

    return apply


def _depthwise(synapse: Conv2d, shape: Shape, dtype: np.dtype) -> Operator:
    """One multiplication per tap: each channel has a kernel of its own."""
    taps = _Taps(synapse, shape)
    kernel = np.ascontiguousarray(synapse.weight[:, 0].transpose(1, 2, 0), dtype=dtype)

    def apply(messages: np.ndarray) -> np.ndarray:
        maps = taps.pad(messages.reshape(-1, *shape).astype(dtype, copy=False))
        out = np.zeros((len(maps), *taps.out), dtype)
        for y, x, high, wide in taps.places:
            out += maps[:, high, wide] * kernel[y, x]
        return out.reshape(len(maps), -1)

    return apply
