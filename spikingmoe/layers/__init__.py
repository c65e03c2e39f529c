"""Modules that own parameters; the equations are in `spikingmoe.functional`."""

from spikingmoe.layers.attention import (
    DepthwiseMixing,
    QKAttention,
    SDSAttention,
    SpikingSelfAttention,
    make_attention,
)
from spikingmoe.layers.downsample import Downsample
from spikingmoe.layers.expert import Experts, SpikingMLP
from spikingmoe.layers.linear import LinearNorm
from spikingmoe.layers.mixing import ConvMixing
from spikingmoe.layers.moe import DenseMLP, MixtureOfExperts
from spikingmoe.layers.neuron import LIF, And
from spikingmoe.layers.norse_neuron import NorseLIF
from spikingmoe.layers.prompt import FeedbackPrompt, NoisePrompt, RelayPool, SDPrompt
from spikingmoe.layers.router import Router
from spikingmoe.layers.sequence import Convolution, Flatten, Readout, Residual
from spikingmoe.layers.stem import Stem

__all__ = [
    "LIF",
    "And",
    "ConvMixing",
    "Convolution",
    "DenseMLP",
    "DepthwiseMixing",
    "Downsample",
    "Experts",
    "FeedbackPrompt",
    "Flatten",
    "LinearNorm",
    "MixtureOfExperts",
    "NoisePrompt",
    "NorseLIF",
    "QKAttention",
    "Readout",
    "RelayPool",
    "Residual",
    "Router",
    "SDPrompt",
    "SDSAttention",
    "SpikingMLP",
    "SpikingSelfAttention",
    "Stem",
    "make_attention",
]
