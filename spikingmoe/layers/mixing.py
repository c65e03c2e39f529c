"""Spikes of neighbouring tokens: the branch of a block in front of its attention.

QK attention lets whole tokens pass or not and experts work token by token: neither carries anything
from one token to another. Without this branch a token never sees more than the stem's receptive field.
"""

from __future__ import annotations

from torch import nn

from spikingmoe.config import ModelConfig
from spikingmoe.layers.attention import DepthwiseMixing
from spikingmoe.layers.neuron import make_neuron
from spikingmoe.layers.square_map import square_map
from spikingmoe.layers.stem import ConvNorm
from spikingmoe.shapes import Tokens


class ConvMixing(nn.Module):
    """A residual convolution on the membrane shortcut: a current BN(conv3x3(LIF(U))).

    The channel convolution of Meta-SpikeFormer (Yao 2024) with one layer. Tokens are a square map, row
    by row, padded with zeros.

    Shapes: the stream U (T, B, N, D) -> a current (T, B, N, D) to add to it.

    Raises:
        ValueError: N is no square.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.neuron = make_neuron(config)
        self.conv = ConvNorm(config.embed_dim, config.embed_dim, stride=1)

    def forward(self, stream: Tokens) -> Tokens:
        x = square_map(self.neuron(stream), "local_mixing 'conv'")
        return self.conv(x).flatten(2, 3)


def make_mixing(config: ModelConfig) -> nn.Module | None:
    """The local mixing that the configuration asks for; None for "none"."""
    match config.local_mixing:
        case "conv":
            return ConvMixing(config)
        case "dwconv":
            return DepthwiseMixing(config)
        case "none":
            return None
