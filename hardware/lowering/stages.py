"""The convolutions that begin a stage: the stem, and the downsampling between two stages."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from hardware.errors import LoweringError
from hardware.ir.synapses import Conv2d
from hardware.lowering.builder import INPUT, STREAM, Builder, Stream
from hardware.lowering.convolution import convolution, fold_conv_norm
from hardware.lowering.fold import Folded
from hardware.lowering.views import plain, token_map
from spikingmoe.layers.downsample import Downsample
from spikingmoe.layers.stem import Stem


def lower_stem(builder: Builder, stem: nn.Module, size: int) -> Stream:
    """The stem's convolutions with neurons between them; returns the stream of the first stage.

    Args:
        size: height and width of the images, which the population `input` sends.
    """
    if not isinstance(stem, Stem):
        raise LoweringError(
            "stem", f"no rule for {type(stem).__name__}; use spikingmoe.layers.Stem"
        )
    source = INPUT
    for index, module in enumerate(stem.convs):
        folded, stride = fold_conv_norm(module, f"stem.convs.{index}")
        size = (size - 1) // stride + 1
        synapse = convolution(source, folded, stride)
        if index == len(stem.convs) - 1:
            return _begin_stream(builder, synapse, size, folded, STREAM)
        source = builder.lif(
            f"stem.lif{index}",
            (size, size, len(folded[0])),
            stem.neurons[index],
            f"stem.neurons.{index}",
            plain,
            folded[1],
        )
        builder.synapses.append(synapse(source))
    raise LoweringError("stem", "it has no convolution")


def lower_downsample(builder: Builder, module: nn.Module, path: str, stream: Stream) -> Stream:
    """U' = BN(conv(LIF(U))): the neurons read the old stream, the convolution begins a new one.

    The new stream is another set of populations with its own scale: no number passes over.
    """
    if not isinstance(module, Downsample):
        raise LoweringError(
            path, f"no rule for {type(module).__name__}; use spikingmoe.layers.Downsample"
        )
    side = stream.shape[0]
    x = builder.read_stream(stream, f"{path}.x", module.neuron, f"{path}.neuron", token_map(side))
    folded, stride = fold_conv_norm(module.conv, f"{path}.conv")
    size = (side - 1) // stride + 1
    return _begin_stream(builder, convolution(x, folded, stride), size, folded, f"{path}.{STREAM}")


def _begin_stream(
    builder: Builder, term: Callable[[str], Conv2d], size: int, folded: Folded, group: str
) -> Stream:
    weight, bias = folded
    stream = Stream(shape=(size, size, len(weight)), bias=bias, group=group)
    builder.stream_term(stream, term)
    builder.relay_stream(stream)
    return stream
