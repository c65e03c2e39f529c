"""Layers of a `SpikingSequential` beside stem, blocks and neurons.

Between layers go either spikes or currents (a residual stream is a current), as tokens (T, B, N, D): the
positions of a square map, row by row. A neuron turns currents into spikes.
"""

from __future__ import annotations

from torch import Tensor, nn

from spikingmoe.layers.square_map import square_map
from spikingmoe.layers.stem import ConvNorm
from spikingmoe.shapes import Logits, Tokens


class Convolution(nn.Module):
    """BN(conv3x3(spikes)), padded with zeros: spikes (T, B, N, D) -> currents (T, B, N', D').

    N' = N for stride 1; a side of s becomes (s - 1) // stride + 1.

    Raises:
        ValueError: N is no square.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.inputs, self.outputs, self.stride = inputs, outputs, stride
        self.conv = ConvNorm(inputs, outputs, stride)

    def forward(self, spikes: Tokens) -> Tensor:
        return self.conv(square_map(spikes, "convolution")).flatten(2, 3)


class Flatten(nn.Module):
    """All neurons as one token: spikes (T, B, N, D) -> (T, B, 1, N D), channels last."""

    def forward(self, spikes: Tokens) -> Tensor:
        return spikes.flatten(2)[:, :, None]


class Residual(nn.Module):
    """U <- U + branch(U), for a branch that reads the stream through neurons of its own.

    Args:
        branch: an attention, a local mixing or a module of yours: the stream (T, B, N, D) -> a current
            of that shape. (Mixtures and dense MLPs give more than a current: they stand in blocks.)
    """

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, stream: Tokens) -> Tokens:
        return stream + self.branch(stream)


class Readout(nn.Module):
    """Logits: the mean over T and N of W spikes + b. Spikes (T, B, N, D) -> (B, classes).

    Behind `Flatten` every neuron has weights of its own.
    """

    def __init__(self, inputs: int, classes: int) -> None:
        super().__init__()
        self.inputs, self.classes = inputs, classes
        self.linear = nn.Linear(inputs, classes)

    def forward(self, spikes: Tokens) -> Logits:
        return self.linear(spikes.mean(dim=(0, 2), dtype=self.linear.weight.dtype))
