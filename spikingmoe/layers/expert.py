"""Spiking experts behind their gates, and the plain spiking MLP of the dense twin."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from spikingmoe.config import ModelConfig
from spikingmoe.layers.linear import GatedBatchNorm, LinearNorm
from spikingmoe.layers.neuron import And, make_neuron
from spikingmoe.shapes import Gates, Tokens


class Experts(nn.Module):
    """E experts of width F, each behind its gate:

        X_e = g_e AND X;   H_e = LIF(BN1_e(W1_e X_e) g_e);   out = sum_e BN2_e(W2_e H_e) g_e

    Folded, the batch norms leave biases driven by the gate. A closed gate means no spike, no
    synaptic operation and no output of that expert.
    Shapes: x (T, B, N, D), gates (T, B, N, E) -> a current (T, B, N, D).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        experts, dim, width = config.num_experts, config.embed_dim, config.expert_width
        self.gate = And()
        self.weight1 = nn.Parameter(_linear_init(experts, width, dim))
        self.norm1 = GatedBatchNorm(experts, width)
        self.neuron = make_neuron(config)
        self.weight2 = nn.Parameter(_linear_init(experts, dim, width))
        self.norm2 = GatedBatchNorm(experts, dim)

    def forward(self, x: Tokens, gates: Gates) -> Tokens:
        gates_ETBN1 = gates.movedim(-1, 0)[..., None]
        x_ETBND = self.gate(gates_ETBN1, x[None])
        gates_ER1 = gates_ETBN1.flatten(1, 3)
        current = self.norm1(torch.bmm(x_ETBND.flatten(1, 3), self.weight1.mT), gates_ER1)
        current = current.unflatten(1, x.shape[:3])
        hidden = self.neuron(current.movedim(1, 0)).movedim(0, 1)  # (E, T, B, N, F)
        out = self.norm2(torch.bmm(hidden.flatten(1, 3), self.weight2.mT), gates_ER1)
        return out.sum(0).view_as(x)


class SpikingMLP(nn.Module):
    """One expert that is always on: H = LIF(BN(W1 X)), out = BN(W2 H). (T, B, N, D) -> the same."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.up = LinearNorm(config.embed_dim, config.expert_width)
        self.neuron = make_neuron(config)
        self.down = LinearNorm(config.expert_width, config.embed_dim)

    def forward(self, x: Tokens) -> Tokens:
        return self.down(self.neuron(self.up(x)))


def _linear_init(experts: int, outputs: int, inputs: int) -> Tensor:
    bound = 1 / math.sqrt(inputs)  # as torch.nn.Linear
    return torch.empty(experts, outputs, inputs).uniform_(-bound, bound)
