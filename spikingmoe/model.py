"""The network: stem, prompt, blocks on a membrane shortcut, head."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spikingmoe.config import ModelConfig, get_preset, override
from spikingmoe.layers.attention import make_attention
from spikingmoe.layers.downsample import Downsample
from spikingmoe.layers.mixing import make_mixing
from spikingmoe.layers.moe import DenseMLP, MixtureOfExperts
from spikingmoe.layers.neuron import make_neuron
from spikingmoe.layers.prompt import FeedbackPrompt, make_prompt
from spikingmoe.layers.router import Router, RoutingInfo
from spikingmoe.layers.stem import Stem
from spikingmoe.shapes import Frames, Logits


@dataclass(frozen=True)
class ModelOutput:
    """Logits (B, classes) and what each router decided, in order."""

    logits: Logits
    routing: tuple[RoutingInfo, ...]


class Block(nn.Module):
    """U <- U + mixing(U); U <- U + attention(U); U <- U + mixture(U, prompt), or a dense MLP there.

    Args:
        config: of the block's stage.
        index: number of the block over all stages.
        previous_dim: channels of the spikes that the block before reads; None for the first.
    """

    def __init__(self, config: ModelConfig, index: int, previous_dim: int | None) -> None:
        super().__init__()
        self.config, self.index, self.previous_dim = config, index, previous_dim
        mixture = config.has_mixture(index)
        self.mixing = make_mixing(config)
        self.attention = make_attention(config)
        self.prompt = (
            FeedbackPrompt(config, previous_dim) if mixture and config.cortical_feedback else None
        )
        self.moe = MixtureOfExperts(config) if mixture else None
        self.mlp = None if mixture else DenseMLP(config)

    def forward(
        self, stream: Tensor, prompt: Tensor | None, previous: Tensor | None
    ) -> tuple[Tensor, Tensor, tuple[RoutingInfo, ...]]:
        """(stream, prompt or pooled relay spikes, X of the block before) -> (stream, own X, infos)."""
        if self.mixing is not None:
            stream = stream + self.mixing(stream)
        if self.attention is not None:
            stream = stream + self.attention(stream)
        if self.mlp is not None:
            x, current = self.mlp(stream)
            return stream + current, x, ()
        assert self.moe is not None
        if self.prompt is not None:
            prompt = self.prompt(prompt, previous)
        x, current, infos = self.moe(stream, prompt)
        return stream + current, x, infos


class RoutedModel(nn.Module, ABC):
    """What models share: images as frames, and the routers within."""

    @property
    @abstractmethod
    def input_shape(self) -> tuple[int, int, int]:
        """(C, height, width) of one image."""

    @property
    def label(self) -> str:
        """What error messages call the model."""
        return type(self).__name__

    def to_frames(self, images: Tensor, steps: int) -> Frames:
        """Images (B, C, height, width) or frames (T, B, C, ...) as (1 or T, B, C, height, width)."""
        name, dtype = self.label, next(self.parameters()).dtype
        if not isinstance(images, Tensor) or images.dtype != dtype:
            got = images.dtype if isinstance(images, Tensor) else type(images).__name__
            raise TypeError(f"{name}: images are {got}; needs a {dtype} tensor")
        if images.ndim == 4 and tuple(images.shape[1:]) == self.input_shape:
            return images[None]
        if (
            images.ndim == 5
            and tuple(images.shape[2:]) == self.input_shape
            and len(images) == steps
        ):
            return images
        raise ValueError(
            f"{name}: images have shape {tuple(images.shape)}; "
            f"needs (batch, {', '.join(map(str, self.input_shape))}) or {steps} such frames in front"
        )

    def routers(self) -> list[Router]:
        """All routers, in the order of `ModelOutput.routing`."""
        return [m for m in self.modules() if isinstance(m, Router)]

    def adapt(self, routing: tuple[RoutingInfo, ...], rate: float) -> None:
        """One homeostatic step of every router, from the decisions of one batch."""
        for router, info in zip(self.routers(), routing, strict=True):
            router.adapt(info, rate)

    def set_temperature(self, temperature: float) -> None:
        """Temperature of the soft form of every gate: of its gradients and losses."""
        for router in self.routers():
            router.choose.temperature = temperature


class SpikingTransformer(RoutedModel):
    """A spike-driven transformer whose MLPs are mixtures of spiking experts.

    Shapes: images (B, C, height, width), normalised, or event frames (T, B, C, height, width)
    -> `ModelOutput`. Logits are the mean over T and N of W LIF(U) + b.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        stages = [config.stage(i) for i in range(len(config.stage_depths))]
        self.stem = Stem(config)
        self.prompt = make_prompt(config)
        self.blocks = nn.ModuleList()
        self.downsamples = nn.ModuleList()
        previous_dim = None
        for index, (stage, depth) in enumerate(zip(stages, config.stage_depths, strict=True)):
            if index > 0:
                self.downsamples.append(Downsample(stages[index - 1], stage))
            for _ in range(depth):
                self.blocks.append(Block(stage, len(self.blocks), previous_dim))
                previous_dim = stage.embed_dim
        self.head_neuron = make_neuron(config)
        self.head = nn.Linear(config.embed_dim, config.num_classes)
        self.input_limit: Tensor  # largest |value| of the training images; a chip clips beyond it
        self.register_buffer("input_limit", torch.tensor(3.0))

    @property
    def label(self) -> str:
        return f"model '{self.config.preset}'"

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, height, width) of one image."""
        c = self.config
        return (c.input_channels, c.image_size, c.image_size)

    def forward(self, images: Tensor) -> ModelOutput:
        frames = self.to_frames(images, self.config.time_steps)
        stream = self.stem(frames)
        prompt = self.prompt(frames) if self.prompt is not None else None
        routing: list[RoutingInfo] = []
        previous = None
        first_of_stage = self.first_blocks()
        for index, block in enumerate(self.blocks):
            if index in first_of_stage:
                stream = self.downsamples[first_of_stage[index]](stream)
            stream, previous, infos = block(stream, prompt, previous)
            routing.extend(infos)
        x = self.head_neuron(stream)
        return ModelOutput(
            self.head(x.mean(dim=(0, 2), dtype=self.head.weight.dtype)), tuple(routing)
        )

    def first_blocks(self) -> dict[int, int]:
        """Number of each block that a downsampling stands before -> number of that downsampling."""
        ends = itertools.accumulate(self.config.early_depths)
        return {block: stage for stage, block in enumerate(ends)}


def create_model(preset: str, **overrides: object) -> SpikingTransformer:
    """Build a preset with some options exchanged.

    Example:
        >>> model = create_model("digits", num_classes=10, top_k=2)
        >>> model.input_shape
        (1, 8, 8)

    Raises:
        ValueError: unknown preset or option, or an invalid combination.
    """
    return SpikingTransformer(override(get_preset(preset), **overrides))
