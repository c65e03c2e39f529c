"""The convolutional stem: from images to the residual stream."""

from __future__ import annotations

from torch import nn

from spikingmoe.config import ModelConfig
from spikingmoe.layers.fire import fire, normalise
from spikingmoe.layers.neuron import make_neuron
from spikingmoe.shapes import Convolved, Frames, Maps, Tokens


class ConvNorm(nn.Module):
    """3x3 convolution without bias, then batch norm.

    Shapes: (T, B, height, width, C) -> (T, B, height', width', C'): channels last, as neurons, norms
    and the convolutions of a processor like them.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Maps) -> Convolved:
        return normalise(self.norm, self.convolve(x))

    def fire(self, x: Maps, neuron: nn.Module, *, steps: int | None = None) -> Convolved:
        """neuron(BN(conv(x))), fused where possible; see `spikingmoe.layers.fire.fire`."""
        return fire(neuron, self.norm, self.convolve(x), steps=steps)

    def convolve(self, x: Maps) -> Convolved:
        """conv(x), without the norm."""
        return self.conv(x.flatten(0, 1).movedim(-1, 1)).movedim(1, -1).unflatten(0, x.shape[:2])


class Stem(nn.Module):
    """Convolutions with batch norm and neurons between them; the last one feeds the stream.

    A still image is one frame: the first convolution runs once and its current is repeated for all
    steps (direct coding). Frames (T' = 1 or T, B, C, height, width) -> currents (T, B, N, D), with D
    channels of the first stage.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.time_steps = config.time_steps
        channels = (config.input_channels, *config.stem_channels, config.stage(0).embed_dim)
        self.convs = nn.ModuleList(
            ConvNorm(channels[i], channels[i + 1], stride)
            for i, stride in enumerate(config.stem_strides)
        )
        self.neurons = nn.ModuleList(make_neuron(config) for _ in config.stem_channels)

    def forward(self, frames: Frames) -> Tokens:
        x = frames.movedim(2, -1)
        for i, neuron in enumerate(self.neurons):
            conv = self.convs[i]
            assert isinstance(conv, ConvNorm)
            x = conv.fire(x, neuron, steps=self.time_steps)
        current = self.convs[-1](x)
        return current.expand(self.time_steps, *current.shape[1:]).flatten(2, 3)
