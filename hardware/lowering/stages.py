"""The convolutions that begin a stage: the stem, and the downsampling between two stages."""

from __future__ import annotations

from collections.abc import Callable

from hardware.errors import LoweringError
from hardware.ir.synapses import Conv2d
from hardware.lowering.builder import INPUT, STREAM, Builder, Spikes, Stream, as_stream
from hardware.lowering.convolution import convolution, fold_conv_norm
from hardware.lowering.fold import Folded
from hardware.lowering.views import plain, token_map
from spikingmoe.layers.downsample import Downsample
from spikingmoe.layers.stem import Stem


def lower_stem(builder: Builder, stem: Stem, path: str, arriving: Spikes) -> Stream:
    """The stem's convolutions with neurons between them; returns the stream of the first stage.

    Args:
        arriving: the image.
    """
    if arriving.population != INPUT:
        raise LoweringError(
            path, "a Stem reads the image; put it first, or use Convolution and LIF"
        )
    source, size = INPUT, builder.populations[INPUT].shape[0]
    for index, module in enumerate(stem.convs):
        folded, stride = fold_conv_norm(module, f"{path}.convs.{index}")
        size = (size - 1) // stride + 1
        synapse = convolution(source, folded, stride)
        if index == len(stem.convs) - 1:
            group = STREAM if path == "stem" else f"{path}.{STREAM}"
            return _begin_stream(builder, synapse, size, folded, group)
        source = builder.lif(
            f"{path}.lif{index}",
            (size, size, len(folded[0])),
            stem.neurons[index],
            f"{path}.neurons.{index}",
            plain,
            folded[1],
        )
        builder.synapses.append(synapse(source))
    raise LoweringError(path, "it has no convolution")


def lower_downsample(builder: Builder, module: Downsample, path: str, stream: Stream) -> Stream:
    """U' = BN(conv(LIF(U))): the neurons read the old stream, the convolution begins a new one.

    The new stream is another set of populations with its own scale: no number passes over.
    """
    side = as_stream(stream, path).shape[0]
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
