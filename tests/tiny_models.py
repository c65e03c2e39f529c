"""Small models with believable statistics, for tests that do not train."""

from __future__ import annotations

import torch
from torch import Tensor

from spikingmoe.config import ModelConfig
from spikingmoe.model import SpikingTransformer

TINY: dict = {
    "preset": "tiny",
    "num_classes": 3,
    "image_size": 6,
    "time_steps": 3,
    "stem_channels": (4,),
    "stem_strides": (2, 1),
    "embed_dim": 8,
    "depth": 1,
    "num_heads": 2,
    "expert_width": 6,
    "num_experts": 3,
    "prompt_width": 5,
    "relay_kernel": 3,
}


def tiny_config(**overrides: object) -> ModelConfig:
    """A model of a few hundred neurons."""
    return ModelConfig(**{**TINY, **overrides})


def tiny_images(config: ModelConfig, samples: int, seed: int = 0) -> Tensor:
    """Smooth random images, normalised: (samples, C, height, width)."""
    generator = torch.Generator().manual_seed(seed)
    shape = (samples, config.input_channels, config.image_size, config.image_size)
    images = torch.nn.functional.avg_pool2d(
        torch.randn(shape, generator=generator), 3, stride=1, padding=1
    )
    return images / images.std()


def settled_model(config: ModelConfig, seed: int = 0) -> SpikingTransformer:
    """A model in evaluation mode whose norms, gains and homeostatic biases are off their initial values."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = SpikingTransformer(config).train()
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.data += 0.3 * torch.randn_like(parameter)
            elif name.endswith("log_gain"):
                parameter.data += 0.2 * torch.randn_like(parameter)
        norms = [m for m in model.modules() if hasattr(m, "momentum")]
        for norm in norms:
            norm.momentum = 0.7
        with torch.no_grad():
            for step in range(5):
                model(tiny_images(config, 16, seed=1000 + step))
        for norm in norms:
            norm.momentum = 0.1
        for router in model.routers():
            bias, threshold = router.homeostatic_bias, router.learned_threshold
            bias.copy_(0.1 * torch.randn_like(bias))
            if threshold is not None:
                threshold.data.copy_(0.1 * torch.randn_like(threshold))
    return model.eval()
