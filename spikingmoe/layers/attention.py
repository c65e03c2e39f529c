"""How tokens exchange what they know: the branch of a block before its experts.

Each module takes the stream U (T, B, N, D), reads X = LIF(U) and gives a current (T, B, N, D) to add
to the stream. All but `SpikingSelfAttention` are static synapses and LIF neurons and can be lowered.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from spikingmoe.config import ModelConfig
from spikingmoe.functional.attention import (
    per_head,
    positive_gain,
    qk_token_sum,
    sdsa_channel_sum,
    ssa_products,
)
from spikingmoe.layers.fire import fire
from spikingmoe.layers.linear import LinearNorm
from spikingmoe.layers.neuron import make_and, make_neuron
from spikingmoe.layers.square_map import square_map
from spikingmoe.shapes import Tokens

# Initial gains, set such that the neurons behind the sums spike about as often (in 0.13 to 0.26
# of the steps, measured at 9 to 1024 tokens and 4 to 64 channels per head) as queries, keys and
# values do (0.18: batch norm gives them currents of mean 0 and variance 1, the threshold is 1).
QK_GAIN = 3.2  # over channels per head
SDSA_GAIN = 16.0  # over tokens
SSA_GAIN = 64.0  # over tokens and channels per head


class QKAttention(nn.Module):
    """Token attention: whole tokens pass or not, per head (after QKFormer, Zhou 2024).

        X = LIF(U);  Q, K = LIF(BN(linear(X)))
        A[t,n,h] = LIF(gain_h * sum_{d in h} Q[t,n,d]);  Y = A AND K;  out = BN(linear(Y))

    We differ from QKFormer by the positive gain per head (it folds into the synapses) and by heads.

    Shapes: the stream U (T, B, N, D) -> a current (T, B, N, D) to add to it.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        dim, heads = config.embed_dim, config.num_heads
        self.neuron = make_neuron(config)
        self.query = LinearNorm(dim, dim)
        self.query_neuron = make_neuron(config)
        self.key = LinearNorm(dim, dim)
        self.key_neuron = make_neuron(config)
        self.log_gain = nn.Parameter(torch.full((heads,), math.log(QK_GAIN / (dim // heads))))
        self.token_neuron = make_neuron(config)
        self.gate = make_and(config)
        self.project = LinearNorm(dim, dim)

    @property
    def gain(self) -> Tensor:
        """(H,), positive."""
        return positive_gain(self.log_gain)

    def forward(self, stream: Tokens) -> Tokens:
        x = self.neuron(stream)
        query = self.query.fire(x, self.query_neuron)
        key = self.key.fire(x, self.key_neuron)
        token = self.token_neuron(qk_token_sum(query, self.gain))
        return self.project(self.gate(per_head(token, key.shape[-1]), key))


class SDSAttention(nn.Module):
    """Channel attention: whole channels pass or not (spike-driven self-attention, Yao 2023).

        X = LIF(U);  Q, K, V = LIF(BN(linear(X)))
        M[t,d] = LIF(gain_d * sum_n (K AND V)[t,n,d]);  Y[t,n,d] = Q[t,n,d] AND M[t,d]
        out = BN(linear(Y))

    This is the form of the authors' code, Q * SN(sum of K * V); their paper's SN(sum of Q * K) * V
    is the same function with Q and V renamed. We differ by the trainable gain (theirs is 1 in our
    units: threshold 0.5 behind a halved input), which starts as 16 / N, since a fixed one leaves the
    neurons silent on few tokens and always on with many.

    Shapes: the stream U (T, B, N, D) -> a current (T, B, N, D) to add to it.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.embed_dim
        self.neuron = make_neuron(config)
        self.query = LinearNorm(dim, dim)
        self.query_neuron = make_neuron(config)
        self.key = LinearNorm(dim, dim)
        self.key_neuron = make_neuron(config)
        self.value = LinearNorm(dim, dim)
        self.value_neuron = make_neuron(config)
        self.key_value = make_and(config)
        self.log_gain = nn.Parameter(torch.full((dim,), math.log(SDSA_GAIN)))
        self.channel_neuron = make_neuron(config)
        self.gate = make_and(config)
        self.project = LinearNorm(dim, dim)

    def gain(self, tokens: int) -> Tensor:
        """(D,), positive: exp(log_gain) / N."""
        return positive_gain(self.log_gain, tokens)

    def forward(self, stream: Tokens) -> Tokens:
        x = self.neuron(stream)
        query = self.query.fire(x, self.query_neuron)
        key = self.key.fire(x, self.key_neuron)
        value = self.value.fire(x, self.value_neuron)
        total = sdsa_channel_sum(self.key_value(key, value), self.gain(stream.shape[2]))
        channel = self.channel_neuron(total)
        return self.project(self.gate(query, channel[:, :, None]))


class DepthwiseMixing(nn.Module):
    """No attention: each channel mixes a token with its eight neighbours.

        X = LIF(U);  Y = LIF(BN(depthwise 3x3 (X as a map)));  out = BN(linear(Y))

    Tokens are a square map, row by row, padded with zeros. After the early stages of Max-Former and
    after STMixer, which mix tokens by depthwise convolutions alone.

    Shapes: the stream U (T, B, N, D) -> a current (T, B, N, D) to add to it.

    Raises:
        ValueError: N is no square.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.embed_dim
        self.neuron = make_neuron(config)
        self.conv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False)
        self.norm = nn.BatchNorm2d(dim)
        self.mixed_neuron = make_neuron(config)
        self.project = LinearNorm(dim, dim)

    def forward(self, stream: Tokens) -> Tokens:
        x = square_map(self.neuron(stream), "attention 'dwconv'")
        x_RCHW = x.flatten(0, 1).movedim(-1, 1)
        mixed_TBHWD = self.conv(x_RCHW).movedim(1, -1).unflatten(0, stream.shape[:2])
        return self.project(fire(self.mixed_neuron, self.norm, mixed_TBHWD).flatten(2, 3))


class HeadProducts(nn.Module):
    """Q K^T V of each head, three tensors (T, B, N, D) -> (T, B, N, H, D / H)."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, query: Tokens, key: Tokens, value: Tokens) -> Tensor:
        return ssa_products(query, key, value, self.heads)

    def extra_repr(self) -> str:
        return f"heads={self.heads}"


class SpikingSelfAttention(nn.Module):
    """Self-attention without softmax, for comparison only (SSA of Spikformer, Zhou 2023).

        X = LIF(U);  Q, K, V = LIF(BN(linear(X)))
        Y = LIF(gain_h * Q_h K_h^T V_h);  out = BN(linear(Y))

    It multiplies spike matrices with each other, which static synapses cannot: `lower` refuses it.
    We differ by the gain: trainable per head and 64 / (N D / H) at first, where Spikformer has 1/8
    always, which leaves small models silent.

    Shapes: the stream U (T, B, N, D) -> a current (T, B, N, D) to add to it.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        dim, heads = config.embed_dim, config.num_heads
        self.neuron = make_neuron(config)
        self.query = LinearNorm(dim, dim)
        self.query_neuron = make_neuron(config)
        self.key = LinearNorm(dim, dim)
        self.key_neuron = make_neuron(config)
        self.value = LinearNorm(dim, dim)
        self.value_neuron = make_neuron(config)
        self.products = HeadProducts(heads)
        self.log_gain = nn.Parameter(torch.full((heads,), math.log(SSA_GAIN)))
        self.attention_neuron = make_neuron(config)
        self.project = LinearNorm(dim, dim)

    def gain(self, tokens: int) -> Tensor:
        """(H,), positive: exp(log_gain) / (N D / H)."""
        channels = self.project.linear.in_features // self.products.heads
        return positive_gain(self.log_gain, tokens * channels)

    def forward(self, stream: Tokens) -> Tokens:
        x = self.neuron(stream)
        query = self.query.fire(x, self.query_neuron)
        key = self.key.fire(x, self.key_neuron)
        value = self.value.fire(x, self.value_neuron)
        current = self.products(query, key, value) * self.gain(stream.shape[2])[:, None]
        return self.project(self.attention_neuron(current.flatten(3)))


def make_attention(config: ModelConfig) -> nn.Module | None:
    """The attention that the configuration asks for; None for "none"."""
    match config.attention:
        case "qk":
            return QKAttention(config)
        case "sdsa":
            return SDSAttention(config)
        case "dwconv":
            return DepthwiseMixing(config)
        case "ssa":
            return SpikingSelfAttention(config)
        case "none":
            return None
