"""How many neurons each neuron reaches, counted from kernels and lists: no matrix is built."""

from __future__ import annotations

import numpy as np

from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import size
from hardware.ir.synapses import AnySynapse, Conv2d, Dense, Shape, conv_output_shape


def fan_out(graph: SpikeGraph, synapse: AnySynapse) -> np.ndarray:
    """(n_source,) int64: connections with a weight that is not zero, exact at the edges of maps."""
    shape = graph.populations[synapse.source].shape
    if isinstance(synapse, Dense):
        return np.count_nonzero(synapse.weight, axis=0).astype(np.int64)
    if isinstance(synapse, Conv2d):
        return _conv_fan_out(synapse, shape)
    used = synapse.columns[synapse.weight != 0]
    return np.bincount(used, minlength=size(graph.populations[synapse.source])).astype(np.int64)


def count_synapses(graph: SpikeGraph) -> int:
    """Connections of the graph with a weight that is not zero."""
    return sum(int(fan_out(graph, synapse).sum()) for synapse in graph.synapses)


def _conv_fan_out(synapse: Conv2d, shape: Shape) -> np.ndarray:
    out = conv_output_shape(shape, synapse)
    channels_out, per_group, kernel_h, kernel_w = synapse.weight.shape
    in_groups = (synapse.groups, channels_out // synapse.groups, per_group, kernel_h, kernel_w)
    used = np.count_nonzero(synapse.weight.reshape(in_groups), axis=1)
    used = used.reshape(shape[2], kernel_h, kernel_w)  # targets of a channel through each tap
    count = np.zeros(shape, dtype=np.int64)
    for y in range(kernel_h):
        for x in range(kernel_w):
            rows, columns = (
                heard(synapse, axis, tap, shape, range(out[axis])) for axis, tap in ((0, y), (1, x))
            )
            count[np.ix_(rows, columns)] += used[:, y, x]
    return count.ravel()


def heard(synapse: Conv2d, axis: int, tap: int, shape: Shape, outputs: range) -> np.ndarray:
    """Positions of the source that a tap brings to `outputs` along an axis; padding is left out."""
    first = tap * synapse.dilation[axis] - synapse.padding[axis]
    places = first + synapse.stride[axis] * np.asarray(outputs, dtype=np.int64)
    return places[(places >= 0) & (places < shape[axis])]
