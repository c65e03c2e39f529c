"""Attention as populations: sums over channels or tokens, and ANDs that let spikes pass."""

from __future__ import annotations

import numpy as np
from torch import nn

from hardware.errors import LoweringError
from hardware.ir.synapses import Conv2d, Sparse
from hardware.lowering.builder import Builder, Stream, Tap, token_synapse
from hardware.lowering.fold import fold_conv, fold_linear, to_numpy
from hardware.lowering.views import channel_map, plain, token_map
from spikingmoe.layers.attention import DepthwiseMixing, QKAttention, SDSAttention
from spikingmoe.layers.linear import LinearNorm


def lower_qk(builder: Builder, attention: QKAttention, path: str, stream: Stream) -> None:
    """X = LIF(U);  A[n,h] = LIF(gain_h sum_{d in h} Q[n,d]);  A AND K."""
    shape, view = stream.shape, token_map(stream.shape[0])
    x = builder.read_stream(stream, f"{path}.x", attention.neuron, f"{path}.neuron", view)
    query = _project(
        builder, x, f"{path}.q", attention.query, attention.query_neuron, f"{path}.query_neuron"
    )
    key = _project(
        builder, x, f"{path}.k", attention.key, attention.key_neuron, f"{path}.key_neuron"
    )
    gain = to_numpy(attention.gain)
    heads, channels = len(gain), shape[-1]
    member = np.kron(np.eye(heads), np.ones((1, channels // heads)))  # (heads, channels)
    token = builder.lif(
        f"{path}.token",
        (*shape[:2], heads),
        attention.token_neuron,
        f"{path}.token_neuron",
        view,
    )
    builder.token_wise(query, token, member * gain[:, None])
    gated = builder.logic(f"{path}.and", shape, "and", 1.5, tap=Tap(f"{path}.gate", view))
    builder.direct(key, gated)
    builder.token_wise(token, gated, member.T.copy())
    _project_onto(builder, attention.project, gated, stream)


def lower_sdsa(builder: Builder, attention: SDSAttention, path: str, stream: Stream) -> None:
    """X = LIF(U);  M[d] = LIF(gain_d sum_n (K AND V)[n,d]);  Q AND M."""
    shape, view = stream.shape, token_map(stream.shape[0])
    tokens, channels = shape[0] * shape[1], shape[-1]
    x = builder.read_stream(stream, f"{path}.x", attention.neuron, f"{path}.neuron", view)
    query = _project(
        builder, x, f"{path}.q", attention.query, attention.query_neuron, f"{path}.query_neuron"
    )
    key = _project(
        builder, x, f"{path}.k", attention.key, attention.key_neuron, f"{path}.key_neuron"
    )
    value = _project(
        builder, x, f"{path}.v", attention.value, attention.value_neuron, f"{path}.value_neuron"
    )
    both = builder.logic(f"{path}.kv", shape, "and", 1.5, tap=Tap(f"{path}.key_value", view))
    builder.direct(key, both)
    builder.direct(value, both)
    channel = builder.lif(
        f"{path}.channel",
        (1, 1, channels),
        attention.channel_neuron,
        f"{path}.channel_neuron",
        channel_map,
    )
    gated = builder.logic(f"{path}.and", shape, "and", 1.5, tap=Tap(f"{path}.gate", view))
    neurons = np.arange(tokens * channels)  # of the map; neuron n D + d is of channel d
    gain = to_numpy(attention.gain(tokens))
    builder.synapses.append(
        Sparse(
            source=both,
            target=channel,
            rows=neurons % channels,
            columns=neurons,
            weight=np.tile(gain, tokens),
        )
    )
    builder.direct(query, gated)
    builder.synapses.append(
        Sparse(
            source=channel,
            target=gated,
            rows=neurons,
            columns=neurons % channels,
            weight=np.ones(len(neurons)),
        )
    )
    _project_onto(builder, attention.project, gated, stream)


def lower_dwconv(builder: Builder, mixing: DepthwiseMixing, path: str, stream: Stream) -> None:
    """LIF(BN(depthwise 3x3 X)): one population between the stream and the projection."""
    shape, view = stream.shape, token_map(stream.shape[0])
    x = builder.read_stream(stream, f"{path}.x", mixing.neuron, f"{path}.neuron", view)
    weight, bias = fold_conv(mixing.conv, mixing.norm)
    mixed = builder.lif(
        f"{path}.mixed", shape, mixing.mixed_neuron, f"{path}.mixed_neuron", plain, bias
    )
    builder.synapses.append(
        Conv2d(source=x, target=mixed, weight=weight, padding=(1, 1), groups=shape[-1])
    )
    _project_onto(builder, mixing.project, mixed, stream)


def refuse_ssa(_builder: Builder, _module: nn.Module, path: str, _stream: Stream) -> None:
    """Raises LoweringError."""
    raise LoweringError(
        path,
        "ssa multiplies two spike matrices with each other, and synapses are static; "
        "use attention 'qk' or 'sdsa'",
    )


def _project_onto(builder: Builder, project: LinearNorm, last: str, stream: Stream) -> None:
    """The branch's output, BN(linear(spikes of `last`)), onto the stream."""
    weight, bias = fold_linear(project)
    stream.bias = stream.bias + bias
    builder.stream_term(stream, lambda target: token_synapse(last, target, weight))


def _project(
    builder: Builder, x: str, name: str, layer: LinearNorm, neuron: nn.Module, path: str
) -> str:
    """LIF(BN(linear(X))), token by token."""
    shape = builder.populations[x].shape
    weight, bias = fold_linear(layer)
    target = builder.lif(name, shape, neuron, path, token_map(shape[0]), bias)
    builder.token_wise(x, target, weight)
    return target
