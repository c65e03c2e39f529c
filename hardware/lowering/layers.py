"""Plain layers: convolutions and linear maps with batch norm, neurons, flattening, the readout."""

from __future__ import annotations

import numpy as np
from torch import nn

from hardware.errors import LoweringError
from hardware.ir.synapses import Dense
from hardware.lowering.builder import (
    STREAM,
    Builder,
    Spikes,
    Stream,
    as_spikes,
    as_stream,
    token_synapse,
)
from hardware.lowering.convolution import convolution, fold_conv_norm
from hardware.lowering.fold import fold_linear
from hardware.lowering.views import token_map
from spikingmoe.layers.linear import LinearNorm
from spikingmoe.layers.sequence import Convolution, Flatten


def lower_convolution(builder: Builder, module: Convolution, path: str, arriving: Spikes) -> Stream:
    """BN(conv3x3(spikes)): a stream of one term."""
    source = as_spikes(arriving, path).population
    folded, stride = fold_conv_norm(module.conv, f"{path}.conv")
    weight, bias = folded
    side, _, channels = builder.populations[source].shape
    if arriving.flat or channels != weight.shape[1]:
        raise LoweringError(
            path, f"takes {weight.shape[1]} channels of a map, gets {_told(builder, arriving)}"
        )
    side = (side - 1) // stride + 1
    stream = Stream(shape=(side, side, len(weight)), bias=bias, group=f"{path}.{STREAM}")
    builder.stream_term(stream, convolution(source, folded, stride))
    return stream


def lower_linear(builder: Builder, module: LinearNorm, path: str, arriving: Spikes) -> Stream:
    """BN(W spikes), token by token, or of all neurons behind `Flatten`: a stream of one term."""
    source = as_spikes(arriving, path).population
    weight, bias = fold_linear(module)
    height, width, channels = builder.populations[source].shape
    inputs = height * width * channels if arriving.flat else channels
    if inputs != weight.shape[1]:
        raise LoweringError(
            path, f"takes {weight.shape[1]} inputs, gets {_told(builder, arriving)}"
        )
    shape = (1, 1, len(weight)) if arriving.flat else (height, width, len(weight))
    stream = Stream(shape=shape, bias=bias, group=f"{path}.{STREAM}")
    if arriving.flat:
        builder.stream_term(
            stream, lambda target: Dense(source=source, target=target, weight=weight)
        )
    else:
        builder.stream_term(stream, lambda target: token_synapse(source, target, weight))
    return stream


def lower_lif(builder: Builder, module: nn.Module, path: str, arriving: Stream) -> Spikes:
    """Neurons that read the currents."""
    stream = as_stream(arriving, path)
    view = token_map(stream.shape[0])
    return Spikes(builder.read_stream(stream, path, module, path, view))


def lower_flatten(_builder: Builder, _module: Flatten, path: str, arriving: Spikes) -> Spikes:
    """The same spikes, seen as one token."""
    return Spikes(as_spikes(arriving, path).population, flat=True)


def lower_readout(
    builder: Builder,
    name: str,
    path: str,
    arriving: Stream | Spikes,
    weight: np.ndarray,
    bias: np.ndarray,
) -> None:
    """Logits as the mean over T and tokens of W spikes + b.

    Args:
        name: of the population.
    """
    spikes = as_spikes(arriving, path)
    height, width, channels = builder.populations[spikes.population].shape
    tokens = 1 if spikes.flat else height * width
    if weight.shape[1] != height * width * channels // tokens:
        raise LoweringError(path, f"takes {weight.shape[1]} inputs, gets {_told(builder, spikes)}")
    readout = builder.readout(name, bias)
    builder.dense(spikes.population, readout, np.tile(weight / tokens, (1, tokens)))


def _told(builder: Builder, arriving: Spikes) -> str:
    height, width, channels = builder.populations[arriving.population].shape
    if arriving.flat:
        return f"{height * width * channels} as one token"
    return f"{channels} on a map of {height} x {width}"
