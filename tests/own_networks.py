"""Networks composed of our layers in orders that no preset has, with believable statistics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from tiny_models import tiny_config
from torch import Tensor, nn

from spikingmoe.config import ModelConfig
from spikingmoe.layers import (
    LIF,
    ConvMixing,
    Convolution,
    Downsample,
    Flatten,
    LinearNorm,
    Readout,
    Residual,
    SDPrompt,
    SDSAttention,
    Stem,
)
from spikingmoe.layers.prompt import RelayPool
from spikingmoe.model import Block
from spikingmoe.sequential import SpikingSequential

BASE = tiny_config(time_steps=3, image_size=6, prompt="none")
DENSE = replace(BASE, routing="dense", num_experts=1)
IMAGE = (1, 6, 6)


def mixed_blocks() -> SpikingSequential:
    """A QK block with a dense MLP, then one with SDSA, four experts and the prompt; a stage between."""
    small = replace(DENSE, embed_dim=4, num_heads=1)
    experts = replace(BASE, attention="sdsa", num_experts=4, top_k=2, prompt="learned")
    layers = [
        Stem(small),
        Block(small, 0, None),
        Downsample(small, DENSE),
        Residual(ConvMixing(DENSE)),
        Block(experts, 0, None),
        LIF(),
        Readout(8, 3),
    ]
    return _network(layers, prompt=SDPrompt(experts))


def feedback_blocks() -> SpikingSequential:
    """Each block has its own prompt, which sees the block before."""
    config = replace(BASE, prompt="learned", cortical_feedback=True, depth=2)
    layers = [Stem(config), Block(config, 0, None), Block(config, 1, 8), LIF(), Readout(8, 3)]
    return _network(layers, prompt=RelayPool(config))


def cnn() -> SpikingSequential:
    """Convolutions and neurons, flattened into the readout."""
    layers = [
        Convolution(1, 4, stride=2),
        LIF(),
        Convolution(4, 6),
        LIF(membrane_decay=0.25, threshold=0.75),
        Flatten(),
        Readout(54, 3),
    ]
    return _network(layers)


def mlp() -> SpikingSequential:
    """Pixels as one token, two layers."""
    layers = [Flatten(), LinearNorm(36, 10), LIF(), LinearNorm(10, 8), LIF(), Readout(8, 3)]
    return _network(layers)


def branch_after_convolution() -> SpikingSequential:
    """A residual stream that begins with a plain convolution, and token-wise maps behind it."""
    layers = [
        Convolution(1, 8, stride=2),
        Residual(SDSAttention(DENSE)),
        Residual(ConvMixing(DENSE)),
        LIF(),
        LinearNorm(8, 5),
        LIF(),
        Readout(5, 3),
    ]
    return _network(layers)


NETWORKS: dict[str, Callable[[], SpikingSequential]] = {
    "mixed blocks": mixed_blocks,
    "feedback": feedback_blocks,
    "cnn": cnn,
    "mlp": mlp,
    "branches": branch_after_convolution,
}


def _network(layers: list[nn.Module], prompt: nn.Module | None = None) -> SpikingSequential:
    return SpikingSequential(layers, input_shape=IMAGE, time_steps=3, prompt=prompt)


def settle(model: nn.Module, images: Callable[[int], Tensor], seed: int = 0) -> nn.Module:
    """Norms off their initial values, then in evaluation mode; `images(seed)` gives a batch."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter += 0.3 * torch.randn_like(parameter)
        norms = [m for m in model.modules() if hasattr(m, "momentum")]
        for norm in norms:
            norm.momentum = 0.7
        model.train()
        for step in range(5):
            model(images(1000 + step))
        for norm in norms:
            norm.momentum = 0.1
    return model.eval()


def settled_network(name: str, seed: int = 0) -> SpikingSequential:
    """One of `NETWORKS`."""
    from tiny_models import tiny_images

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = NETWORKS[name]()
    settle(model, lambda number: tiny_images(image_config(), 16, number), seed)
    return model


def image_config() -> ModelConfig:
    """What `tiny_images` needs to know."""
    return BASE
