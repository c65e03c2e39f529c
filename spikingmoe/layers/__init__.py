"""Modules that own parameters; the equations are in `spikingmoe.functional`."""

from spikingmoe.layers.attention import QKAttention
from spikingmoe.layers.expert import Experts, SpikingMLP
from spikingmoe.layers.moe import DenseMLP, MixtureOfExperts
from spikingmoe.layers.neuron import LIF, And
from spikingmoe.layers.prompt import SDPrompt
from spikingmoe.layers.router import Router
from spikingmoe.layers.stem import Stem

__all__ = [
    "LIF",
    "And",
    "DenseMLP",
    "Experts",
    "MixtureOfExperts",
    "QKAttention",
    "Router",
    "SDPrompt",
    "SpikingMLP",
    "Stem",
]
