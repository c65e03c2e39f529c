"""The network: stem, prompt, blocks on a membrane shortcut, head."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spikingmoe.config import ModelConfig, get_preset, override
from spikingmoe.layers.attention import QKAttention
from spikingmoe.layers.moe import DenseMLP, MixtureOfExperts
from spikingmoe.layers.neuron import make_neuron
from spikingmoe.layers.prompt import SDPrompt
from spikingmoe.layers.router import RoutingInfo
from spikingmoe.layers.stem import Stem
from spikingmoe.shapes import Frames, Logits


@dataclass(frozen=True)
class ModelOutput:
    """Logits (B, classes) and what each router decided (empty for dense models)."""

    logits: Logits
    routing: tuple[RoutingInfo, ...]


class Block(nn.Module):
    """U <- U + attention(U); U <- U + mixture(U, prompt)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.attention = QKAttention(config)
        self.moe = MixtureOfExperts(config) if config.routing != "dense" else None
        self.mlp = DenseMLP(config) if config.routing == "dense" else None

    def forward(self, stream: Tensor, prompt: Tensor | None) -> tuple[Tensor, RoutingInfo | None]:
        stream = stream + self.attention(stream)
        if self.mlp is not None:
            return stream + self.mlp(stream), None
        assert self.moe is not None
        assert prompt is not None
        current, info = self.moe(stream, prompt)
        return stream + current, info


class SpikingTransformer(nn.Module):
    """A spike-driven transformer whose MLPs are mixtures of spiking experts.

    Shapes: images (B, C, height, width), normalised, or event frames (T, B, C, height, width)
    -> `ModelOutput`. Logits are the mean over T and N of W LIF(U) + b.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.stem = Stem(config)
        self.prompt = SDPrompt(config) if config.routing != "dense" else None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.head_neuron = make_neuron(config)
        self.head = nn.Linear(config.embed_dim, config.num_classes)
        self.input_limit: Tensor  # largest |value| of the training images; a chip clips beyond it
        self.register_buffer("input_limit", torch.tensor(3.0))

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, height, width) of one image."""
        c = self.config
        return (c.input_channels, c.image_size, c.image_size)

    def forward(self, images: Tensor) -> ModelOutput:
        frames = self._frames(images)
        stream = self.stem(frames)
        prompt = self.prompt(frames) if self.prompt is not None else None
        routing = []
        for block in self.blocks:
            stream, info = block(stream, prompt)
            if info is not None:
                routing.append(info)
        x = self.head_neuron(stream)
        return ModelOutput(self.head(x.mean(dim=(0, 2))), tuple(routing))

    def _frames(self, images: Tensor) -> Frames:
        """(1 or T, B, C, height, width)."""
        steps, dtype = self.config.time_steps, self.head.weight.dtype
        if not isinstance(images, Tensor) or images.dtype != dtype:
            got = images.dtype if isinstance(images, Tensor) else type(images).__name__
            raise TypeError(
                f"model '{self.config.preset}': images are {got}; needs a {dtype} tensor"
            )
        if images.ndim == 4 and tuple(images.shape[1:]) == self.input_shape:
            return images[None]
        if (
            images.ndim == 5
            and tuple(images.shape[2:]) == self.input_shape
            and len(images) == steps
        ):
            return images
        raise ValueError(
            f"model '{self.config.preset}': images have shape {tuple(images.shape)}; "
            f"needs (batch, {', '.join(map(str, self.input_shape))}) or {steps} such frames in front"
        )

    @torch.no_grad()
    def adapt(self, routing: tuple[RoutingInfo, ...], rate: float) -> None:
        """One homeostatic step of every router, from the load of one batch."""
        mixtures = [m for m in self.modules() if isinstance(m, MixtureOfExperts)]
        for mixture, info in zip(mixtures, routing, strict=True):
            mixture.router.adapt(info.load, rate)


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
