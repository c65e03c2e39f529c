"""SDprompt: an LGN-inspired, input-dependent binary prompt that helps to select the experts.

The published equations of spike-driven prompts are not public; this is our form of the idea.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from spikingmoe.config import ModelConfig
from spikingmoe.layers.linear import LinearNorm
from spikingmoe.layers.neuron import make_neuron
from spikingmoe.shapes import Frames, Prompt


def difference_of_gaussians(kernel: int, *, centre: float = 0.8, surround: float = 1.6) -> Tensor:
    """(kernel, kernel) centre-surround receptive field: sums to 0, squares sum to 1 (Rodieck 1965)."""
    axis = torch.arange(kernel, dtype=torch.float32) - (kernel - 1) / 2
    radius = axis[:, None] ** 2 + axis[None, :] ** 2
    fields = [torch.exp(-radius / (2 * sigma**2)) for sigma in (centre, surround)]
    field = fields[0] / fields[0].sum() - fields[1] / fields[1].sum()
    return field / field.norm()


def opponent_channels(input_channels: int) -> Tensor:
    """(R, C) what the relay cells look at: luminance for grey images; luminance, red-green and
    blue-yellow for colour; each polarity for events."""
    if input_channels == 1:
        return torch.ones(1, 1)
    if input_channels == 2:
        return torch.eye(2)
    if input_channels == 3:
        return torch.tensor([[1 / 3, 1 / 3, 1 / 3], [0.5, -0.5, 0.0], [-0.25, -0.25, 0.5]])
    raise ValueError(
        f"prompt: input_channels={input_channels}; use 1 (grey), 2 (events) or 3 (colour)"
    )


class RelayCells(nn.Module):
    """ON and OFF relay cells of the LGN: depthwise centre-surround fields over opponent channels.

    current_r = field_r * (opponent channel of r); ON cells start as +, OFF cells as - a difference
    of Gaussians. Frames (T', B, C, height, width) -> currents (T', B, 2 R, height, width), ON first.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        opponent = opponent_channels(config.input_channels)
        self.opponent: Tensor
        self.register_buffer("opponent", torch.cat([opponent, opponent]))
        field = 2.0 * difference_of_gaussians(config.relay_kernel)
        signs = torch.cat([torch.ones(len(opponent)), -torch.ones(len(opponent))])
        self.fields = nn.Parameter(signs[:, None, None] * field)

    def weight(self) -> Tensor:
        """The convolution that the cells compute, (2 R, C, kernel, kernel)."""
        return self.opponent[:, :, None, None] * self.fields[:, None]

    def forward(self, frames: Tensor) -> Tensor:
        current = F.conv2d(frames.flatten(0, 1), self.weight(), padding=self.fields.shape[-1] // 2)
        return current.unflatten(0, frames.shape[:2])


class SDPrompt(nn.Module):
    """P[t] = LIF(BN(W pool(relay[t]))) with relay[t] = LIF(relay cells), pooled onto a coarse grid.

    Once per sample and step, shared by all blocks.
    Shapes: frames (T' = 1 or T, B, C, height, width) -> (T, B, M) of 0 and 1.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.time_steps = config.time_steps
        self.cells = RelayCells(config)
        self.relay_neuron = make_neuron(config)
        window, channels = config.image_size // config.prompt_grid, len(self.cells.fields)
        self.pool = nn.Conv2d(
            channels, channels, window, stride=window, groups=channels, bias=False
        )
        nn.init.constant_(self.pool.weight, 1.0 / window)
        self.project = LinearNorm(channels * config.prompt_grid**2, config.prompt_width)
        self.neuron = make_neuron(config)

    def forward(self, frames: Frames) -> Prompt:
        current = self.cells(frames)
        relay = self.relay_neuron(current.expand(self.time_steps, *current.shape[1:]))
        pooled = self.pool(relay.flatten(0, 1)).flatten(1).unflatten(0, relay.shape[:2])
        return self.neuron(self.project(pooled))
