"""The mixture layer: router and experts (or, dense, one expert) on the residual stream."""

from __future__ import annotations

from torch import nn

from spikingmoe.config import ModelConfig
from spikingmoe.layers.expert import Experts, SpikingMLP
from spikingmoe.layers.neuron import make_neuron
from spikingmoe.layers.router import Router, RoutingInfo
from spikingmoe.shapes import Prompt, Tokens


class MixtureOfExperts(nn.Module):
    """X = LIF(U), gates from the router, experts behind them.

    Shapes: the stream U (T, B, N, D), prompt (T, B, M) -> (current (T, B, N, D), RoutingInfo).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.neuron = make_neuron(config)
        self.router = Router(config)
        self.experts = Experts(config)

    def forward(self, stream: Tokens, prompt: Prompt) -> tuple[Tokens, RoutingInfo]:
        x = self.neuron(stream)
        gates, info = self.router(x, prompt)
        return self.experts(x, gates), info


class DenseMLP(nn.Module):
    """X = LIF(U) and one expert that is always on: (T, B, N, D) -> a current of the same shape."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.neuron = make_neuron(config)
        self.mlp = SpikingMLP(config)

    def forward(self, stream: Tokens) -> Tokens:
        return self.mlp(self.neuron(stream))
