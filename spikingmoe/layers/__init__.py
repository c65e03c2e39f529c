"""Modules that own parameters; the equations are in `spikingmoe.functional`."""

from spikingmoe.layers.attention import (
    DepthwiseMixing,
    QKAttention,
    SDSAttention,
    SpikingSelfAttention,
    make_attention,
)
from spikingmoe.layers.expert import Experts, SpikingMLP
from spikingmoe.layers.moe import DenseMLP, MixtureOfExperts
from spikingmoe.layers.neuron import LIF, And
from spikingmoe.layers.norse_neuron import NorseLIF
from spikingmoe.layers.prompt import FeedbackPrompt, NoisePrompt, RelayPool, SDPrompt
from spikingmoe.layers.router import Router
from spikingmoe.layers.stem import Stem

__all__ = [
    "LIF",
    "And",
    "DenseMLP",
    "DepthwiseMixing",
    "Experts",
    "FeedbackPrompt",
    "MixtureOfExperts",
    "NoisePrompt",
    "NorseLIF",
    "QKAttention",
    "RelayPool",
    "Router",
    "SDPrompt",
    "SDSAttention",
    "SpikingMLP",
    "SpikingSelfAttention",
    "Stem",
    "make_attention",
]
