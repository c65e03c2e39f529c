"""The local mixing in front of a block's attention: a convolution from spikes onto the stream."""

from __future__ import annotations

from hardware.lowering.builder import Builder, Stream
from hardware.lowering.convolution import convolution, fold_conv_norm
from hardware.lowering.views import token_map
from spikingmoe.layers.mixing import ConvMixing


def lower_conv_mixing(builder: Builder, mixing: ConvMixing, path: str, stream: Stream) -> None:
    """X = LIF(U), and BN(conv X) onto the stream."""
    view = token_map(stream.shape[0])
    x = builder.read_stream(stream, f"{path}.x", mixing.neuron, f"{path}.neuron", view)
    folded, stride = fold_conv_norm(mixing.conv, f"{path}.conv")
    stream.bias = stream.bias + folded[1]
    builder.stream_term(stream, convolution(x, folded, stride))
