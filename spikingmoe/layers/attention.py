"""Token attention by queries and keys."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from spikingmoe.config import ModelConfig
from spikingmoe.functional.attention import per_head, qk_token_sum
from spikingmoe.layers.linear import LinearNorm
from spikingmoe.layers.neuron import And, make_neuron
from spikingmoe.shapes import Tokens


class QKAttention(nn.Module):
    """Token attention: whole tokens pass or not, per head (after QKFormer, Zhou 2024).

        X = LIF(U);  Q, K = LIF(BN(linear(X)))
        A[t,n,h] = LIF(gain_h * sum_{d in h} Q[t,n,d]);  Y = A AND K;  out = BN(linear(Y))

    We differ from QKFormer by the positive gain per head (it folds into the synapses) and by heads.

    Shapes: the stream U (T, B, N, D) -> a current (T, B, N, D) to add to it.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.embed_dim
        self.neuron = make_neuron(config)
        self.query = LinearNorm(dim, dim)
        self.query_neuron = make_neuron(config)
        self.key = LinearNorm(dim, dim)
        self.key_neuron = make_neuron(config)
        self.log_gain = nn.Parameter(torch.full((config.num_heads,), math.log(0.4)))
        self.token_neuron = make_neuron(config)
        self.gate = And()
        self.project = LinearNorm(dim, dim)

    @property
    def gain(self) -> Tensor:
        """(H,), positive."""
        return self.log_gain.exp()

    def forward(self, stream: Tokens) -> Tokens:
        x = self.neuron(stream)
        query = self.query_neuron(self.query(x))
        key = self.key_neuron(self.key(x))
        token = self.token_neuron(qk_token_sum(query, self.gain))
        return self.project(self.gate(per_head(token, key.shape[-1]), key))
