"""A module that no rule of ours knows, and the rule that lowers it: an example of both."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hardware.ir import Conv2d
from hardware.lowering import Builder, Stream, fold_linear, token_map
from hardware.lowering.builder import token_synapse
from spikingmoe.layers import LIF, LinearNorm
from spikingmoe.layers.square_map import square_map


class TokenShift(nn.Module):
    """X = LIF(U);  Y[n] = LIF(BN(A X[n]) + BN(B X[left of n]));  out = BN(linear(Y))."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.neuron, self.mixed_neuron = LIF(), LIF()
        self.here, self.left = LinearNorm(dim, dim), LinearNorm(dim, dim)
        self.project = LinearNorm(dim, dim)

    def forward(self, stream: Tensor) -> Tensor:
        x = self.neuron(stream)
        left = torch.zeros_like(square_map(x, "token shift"))
        left[..., 1:, :] = square_map(x, "token shift")[..., :-1, :]
        return self.project(self.mixed_neuron(self.here(x) + self.left(left.flatten(2, 3))))


def lower_token_shift(builder: Builder, module: TokenShift, path: str, stream: Stream) -> None:
    """The left neighbour is a kernel of one row and three columns with weights on the first."""
    view = token_map(stream.shape[0])
    x = builder.read_stream(stream, f"{path}.x", module.neuron, f"{path}.neuron", view)
    here, bias = fold_linear(module.here)
    left, shift = fold_linear(module.left)
    mixed = builder.lif(
        f"{path}.mixed",
        stream.shape,
        module.mixed_neuron,
        f"{path}.mixed_neuron",
        view,
        bias + shift,
    )
    builder.token_wise(x, mixed, here)
    kernel = torch.zeros(*left.shape, 1, 3, dtype=torch.float64).numpy()
    kernel[:, :, 0, 0] = left
    builder.synapses.append(Conv2d(source=x, target=mixed, weight=kernel, padding=(0, 1)))
    weight, bias = fold_linear(module.project)
    stream.bias = stream.bias + bias
    builder.stream_term(stream, lambda target: token_synapse(mixed, target, weight))


RULES = {TokenShift: lower_token_shift}
