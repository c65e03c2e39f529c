"""The local mixing in front of a block's attention: a convolution from spikes onto the stream."""

from __future__ import annotations

from torch import nn

from hardware.errors import LoweringError
from hardware.lowering.attention import lower_attention
from hardware.lowering.builder import Builder, Stream
from hardware.lowering.convolution import convolution, fold_conv_norm
from hardware.lowering.views import token_map
from spikingmoe.layers.attention import DepthwiseMixing
from spikingmoe.layers.mixing import ConvMixing


def lower_mixing(builder: Builder, mixing: nn.Module, path: str, stream: Stream) -> None:
    """X = LIF(U), and BN(conv X) (behind one more population for `dwconv`) onto the stream.

    Raises:
        LoweringError: `mixing` has no rule.
    """
    if isinstance(mixing, DepthwiseMixing):
        lower_attention(builder, mixing, path, stream)
        return
    if not isinstance(mixing, ConvMixing):
        raise LoweringError(
            path,
            f"no rule for {type(mixing).__name__}; ConvMixing and DepthwiseMixing can be lowered",
        )
    view = token_map(stream.shape[0])
    x = builder.read_stream(stream, f"{path}.x", mixing.neuron, f"{path}.neuron", view)
    folded, stride = fold_conv_norm(mixing.conv, f"{path}.conv")
    stream.bias = stream.bias + folded[1]
    builder.stream_term(stream, convolution(x, folded, stride))
