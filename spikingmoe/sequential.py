"""A network of one's own, composed of our layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from spikingmoe.layers.linear import LinearNorm
from spikingmoe.layers.sequence import Convolution, Flatten, Readout
from spikingmoe.layers.stem import Stem
from spikingmoe.model import Block, ModelOutput, RoutedModel


class SpikingSequential(RoutedModel):
    """Layers of any kinds one after the other, the last one a `Readout`.

    Images enter as tokens (T, B, N, C), one per pixel, or as frames where the first layer is a `Stem`. What
    each layer takes and gives:

        Stem                              frames -> a stream of currents
        Convolution, LinearNorm           spikes (or the image) -> currents
        LIF                               currents -> spikes
        Block, Downsample, Residual       a stream of currents -> a stream of currents
        Flatten                           spikes -> spikes
        Readout                           spikes -> logits

    Args:
        layers: in order; blocks may be of different configurations.
        input_shape: (C, size, size) of one image.
        time_steps: T of all layers.
        prompt: an `SDPrompt` that the routers of all blocks see (a `RelayPool` with cortical feedback).

    Shapes: images (B, C, size, size), or event frames (T, B, C, size, size) -> `ModelOutput`.

    Raises:
        ValueError: images that are no squares, no `Readout` at the end, or one before it.

    Example:
        >>> from spikingmoe.layers import LIF, Convolution, Flatten, Readout
        >>> model = SpikingSequential(
        ...     [Convolution(1, 4, stride=2), LIF(), Flatten(), Readout(64, 10)],
        ...     input_shape=(1, 8, 8),
        ...     time_steps=4,
        ... )
        >>> model(torch.zeros(2, 1, 8, 8)).logits.shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        layers: Sequence[nn.Module],
        *,
        input_shape: tuple[int, int, int],
        time_steps: int,
        prompt: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if input_shape[1] != input_shape[2]:
            raise ValueError(f"input_shape={input_shape}: images must be squares")
        places = [i for i, layer in enumerate(layers) if isinstance(layer, Readout)]
        if places != [len(layers) - 1]:
            raise ValueError(
                f"a SpikingSequential ends with its one Readout; of these {len(layers)} layers "
                f"{places or 'none'} are readouts"
            )
        self.layers = nn.ModuleList(layers)
        self.prompt = prompt
        self.time_steps = time_steps
        self._input_shape = tuple(input_shape)
        self.input_limit: Tensor  # largest |value| of the training images; a chip clips beyond it
        self.register_buffer("input_limit", torch.tensor(3.0))

    @property
    def input_shape(self) -> tuple[int, int, int]:
        channels, height, width = self._input_shape
        return (channels, height, width)

    def forward(self, images: Tensor) -> ModelOutput:
        frames = self.to_frames(images, self.time_steps)
        prompt = self.prompt(frames) if self.prompt is not None else None
        from_frames = isinstance(self.layers[0], Stem)
        value = frames if from_frames else frames.movedim(2, -1).flatten(2, 3)
        routing, previous = [], None
        for layer in self.layers:
            # A still image is one frame, the same current at every step: neurons need all steps.
            if not isinstance(layer, (Stem, Convolution, LinearNorm, Flatten)):
                value = value.expand(self.time_steps, *value.shape[1:])
            if isinstance(layer, Block):
                value, previous, infos = layer(value, prompt, previous)
                routing.extend(infos)
            else:
                value = layer(value)
        return ModelOutput(value, tuple(routing))
