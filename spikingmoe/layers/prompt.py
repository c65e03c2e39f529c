"""SDprompt: an LGN-inspired, input-dependent binary prompt that helps to select the experts.

The published equations of spike-driven prompts are not public; this is our form of the idea. Its
ablations are here too: a frozen random prompt, and noise that does not depend on the image.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from spikingmoe.config import ModelConfig
from spikingmoe.layers.linear import LinearNorm
from spikingmoe.layers.neuron import make_neuron
from spikingmoe.shapes import Frames, Prompt, Tokens

Pooled = Float[Tensor, "T B pooled"]  # relay spikes pooled onto the grid, R x grid^2 numbers

NOISE_RATE = 0.5  # spikes per bit and step: the rate at which a bit carries most entropy
NOISE_SEED = 0  # of the bits in evaluation mode


def difference_of_gaussians(kernel: int, *, centre: float = 0.8, surround: float = 1.6) -> Tensor:
    """(kernel, kernel) centre-surround receptive field: sums to 0, squares sum to 1 (Rodieck 1965)."""
    axis = torch.arange(kernel, dtype=torch.float32) - (kernel - 1) / 2
    radius = axis[:, None] ** 2 + axis[None, :] ** 2
    fields = [torch.exp(-radius / (2 * sigma**2)) for sigma in (centre, surround)]
    field = fields[0] / fields[0].sum() - fields[1] / fields[1].sum()
    return field / field.norm()


def opponent_channels(input_channels: int) -> Tensor:
    """(R / 2, C) what the relay cells look at: luminance for grey images; luminance, red-green and
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
    of Gaussians. They stand at every `relay_stride`-th pixel, as ganglion cells are sparser than
    receptors. Frames (T', B, C, height, width) -> currents (T', B, R, height', width'), ON first.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        opponent = opponent_channels(config.input_channels)
        self.opponent: Tensor
        self.register_buffer("opponent", torch.cat([opponent, opponent]))
        self.stride = config.relay_stride
        field = 2.0 * difference_of_gaussians(config.relay_kernel)
        signs = torch.cat([torch.ones(len(opponent)), -torch.ones(len(opponent))])
        self.fields = nn.Parameter(signs[:, None, None] * field)

    def weight(self) -> Tensor:
        """The convolution that the cells compute, (R, C, kernel, kernel)."""
        return self.opponent[:, :, None, None] * self.fields[:, None]

    def forward(self, frames: Tensor) -> Tensor:
        half = self.fields.shape[-1] // 2
        current = F.conv2d(frames.flatten(0, 1), self.weight(), stride=self.stride, padding=half)
        return current.unflatten(0, frames.shape[:2])

    def extra_repr(self) -> str:
        return f"stride={self.stride}"


class RelayPool(nn.Module):
    """pool(relay[t]) with relay[t] = LIF(relay cells): spikes of the LGN on a coarse grid.

    The pool is a strided depthwise convolution that starts as the sum of a cell's spikes, divided
    by the window's side. Frames of a still image (T' = 1) are the same current at every step.
    Shapes: frames (T' = 1 or T, B, C, height, width) -> (T, B, R grid^2).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.time_steps = config.time_steps
        self.cells = RelayCells(config)
        self.relay_neuron = make_neuron(config)
        window, channels = config.relay_side // config.prompt_grid, len(self.cells.fields)
        self.pool = nn.Conv2d(
            channels, channels, window, stride=window, groups=channels, bias=False
        )
        nn.init.constant_(self.pool.weight, 1.0 / window)

    def forward(self, frames: Frames) -> Pooled:
        current = self.cells(frames)
        relay = self.relay_neuron(current.expand(self.time_steps, *current.shape[1:]))
        return self.pool(relay.flatten(0, 1)).flatten(1).unflatten(0, relay.shape[:2])


class SDPrompt(nn.Module):
    """P[t] = LIF(BN(W pool(relay[t]))), once per sample and step, shared by all blocks.

    `prompt="random"` is the same module as it is initialised and never trained: the relay cells
    stay differences of Gaussians, W stays random, and only the batch norm's running statistics
    follow the data. It still depends on the image.
    Shapes: frames (T' = 1 or T, B, C, height, width) -> (T, B, M) of 0 and 1.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.relay_pool = RelayPool(config)
        self.project = LinearNorm(pooled_width(config), config.prompt_width)
        self.neuron = make_neuron(config)
        if config.prompt == "random":
            self.requires_grad_(False)

    def forward(self, frames: Frames) -> Prompt:
        return self.project.fire(self.relay_pool(frames), self.neuron)


class FeedbackPrompt(nn.Module):
    """The prompt of block l with cortical feedback, which stays feed-forward so that it pipelines:

        P_l[t] = LIF(BN(W_l pool(relay[t])) + BN(F_l mean over tokens of X_{l-1}[t]))

    X_{l-1} are the spikes that the MLP or the mixture of the block before reads. In the thalamus
    feedback comes from the cortex above; here it comes from the block below, since a loop over
    blocks would be a cycle of populations.

    Args:
        previous_dim: channels of X_{l-1}; None for the first block, which has no feedback.

    Shapes: pooled relay (T, B, R grid^2), previous (T, B, N, D) or None -> (T, B, M) of 0 and 1.

    Raises:
        ValueError: spikes of a block before are given to the first block, or are not to another.
    """

    def __init__(self, config: ModelConfig, previous_dim: int | None) -> None:
        super().__init__()
        self.project = LinearNorm(pooled_width(config), config.prompt_width)
        self.feedback = (
            None if previous_dim is None else LinearNorm(previous_dim, config.prompt_width)
        )
        self.neuron = make_neuron(config)

    def forward(self, pooled: Pooled, previous: Tokens | None) -> Prompt:
        if self.feedback is None and previous is not None:
            raise ValueError("prompt: the first block has none before it; give previous=None")
        if self.feedback is not None and previous is None:
            raise ValueError("prompt: feedback needs the spikes of the block before, got None")
        current = self.project(pooled)
        if self.feedback is not None and previous is not None:
            current = current + self.feedback(previous.mean(dim=2))
        return self.neuron(current)


class NoisePrompt(nn.Module):
    """Bernoulli bits that do not depend on the image: what any prompt of this width and rate does.

    While training they come from torch's global generator. In evaluation mode they come from a
    fixed one: the sample at place b of a batch gets the same bits in every batch of any size, so
    that a run can be repeated, and samples still differ from each other. (Bits of a sample that do
    not depend on its place would have to depend on the image, or be the same for all samples,
    which would turn noise into a constant preference for some experts.)
    Shapes: frames (T' = 1 or T, B, C, height, width) -> (T, B, M) of 0 and 1.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.time_steps, self.width = config.time_steps, config.prompt_width

    def forward(self, frames: Frames) -> Prompt:
        shape = (frames.shape[1], self.time_steps, self.width)  # samples first: a prefix per size
        if self.training:
            draw = torch.rand(shape, device=frames.device)
        else:
            generator = torch.Generator().manual_seed(NOISE_SEED)
            draw = torch.rand(shape, generator=generator).to(frames.device)
        return (draw < NOISE_RATE).to(frames.dtype).transpose(0, 1)


def pooled_width(config: ModelConfig) -> int:
    """Numbers per step and sample that `RelayPool` gives: R grid^2."""
    return 2 * len(opponent_channels(config.input_channels)) * config.prompt_grid**2


def make_prompt(config: ModelConfig) -> nn.Module | None:
    """What the model computes once per sample, for all blocks.

    The prompt; None without one; with cortical feedback the pooled relay spikes, from which each
    block makes its own prompt (`FeedbackPrompt`).
    """
    if not config.has_prompt:
        return None
    if config.cortical_feedback:
        return RelayPool(config)
    return NoisePrompt(config) if config.prompt == "noise" else SDPrompt(config)
