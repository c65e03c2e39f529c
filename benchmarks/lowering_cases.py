"""The networks that `lowering.py` lowers: presets, their sizes, and every lowerable way to build one."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from spikingmoe.config import ModelConfig, get_preset, override
from spikingmoe.data import Split, load_data
from spikingmoe.model import SpikingTransformer
from spikingmoe.train.checkpoint import load_run

PRESETS = ("digits", "cifar-tiny", "cifar-small", "cifar-base", "events-tiny", "events-small")
TRAINED = "cifar-tiny trained"
SETTLING_BATCHES = 6


@dataclass(frozen=True, kw_only=True)
class Case:
    """A preset with some options exchanged; `trained` is the bundled checkpoint of that name."""

    preset: str
    options: dict[str, object] = field(default_factory=dict)
    residual: str = "relay"
    trained: str = ""

    @property
    def config(self) -> ModelConfig:
        """The model's configuration."""
        return override(get_preset(self.preset), **self.options)


#: Ways to route, attend, mix and hold, each on the smallest CIFAR preset.
VARIANTS: dict[str, dict[str, object]] = {
    "threshold": {"routing": "threshold"},
    "dynamic": {"routing": "dynamic"},
    "expert-choice": {"routing": "expert_choice"},
    "hash": {"routing": "hash", "prompt": "none"},
    "hierarchical": {"routing": "hierarchical", "num_groups": 2},
    "noisy": {"routing": "noisy_top_k"},
    "top-2": {"top_k": 2},
    "dense": {"routing": "dense", "num_experts": 1, "prompt": "none"},
    "by-image": {"route_by": "image"},
    "held": {"hold": "window"},
    "shared": {"shared_experts": 1},
    "chain": {"chain": "depth", "chain_length": 2},
    "feedback": {"cortical_feedback": True},
    "sdsa": {"attention": "sdsa"},
    "dwconv": {"attention": "dwconv"},
    "no-attention": {"attention": "none"},
    "depthwise-mixing": {"local_mixing": "dwconv"},
}


def all_cases() -> dict[str, Case]:
    """By name: the trained checkpoint, the presets with 10 and 100 classes, variants, both residual forms."""
    cases = {TRAINED: Case(preset="cifar-tiny", trained="cifar-tiny")}
    cases |= {name: Case(preset=name) for name in PRESETS}
    cases |= {
        f"{name} 100": Case(preset=name, options={"num_classes": 100})
        for name in PRESETS
        if name.startswith("cifar")
    }
    cases["cifar-tiny unrolled"] = Case(preset="cifar-tiny", residual="unrolled")
    cases |= {
        f"cifar-tiny {name}": Case(preset="cifar-tiny", options=options)
        for name, options in VARIANTS.items()
    }
    return cases


def make_model(
    case: Case, images: int, data_dir: str | None, seed: int
) -> tuple[SpikingTransformer, Split, str]:
    """(model in evaluation mode, images with labels, what the images are).

    An untrained model is settled first: its norms take the statistics of images, so that neurons fire.
    """
    if case.trained:
        run = load_run(case.trained)
        data = load_data(run.train_config.data, data_dir)
        return run.model.eval(), data.test.first(images), f"{data.name} test images"
    config = case.config
    torch.manual_seed(seed)
    model = SpikingTransformer(config)
    if config.input_channels == 3 and data_dir is not None:
        data = load_data("cifar10", data_dir)
        split, words = data.test.first(images), "cifar10 test images"
        settling = data.train.first(SETTLING_BATCHES * 16).images
    else:
        words = "synthetic event counts" if config.input_channels == 2 else "smooth noise"
        drawn = synthetic_images(config, images + SETTLING_BATCHES * 16)
        split = Split(drawn[:images], torch.zeros(images, dtype=torch.int64))
        settling = drawn[images:]
    settle(model, settling)
    return model.eval(), split, words


def synthetic_images(config: ModelConfig, count: int) -> Tensor:
    """Smooth random images (count, C, H, W) of unit variance; event counts (count, T, 2, H, W)."""
    side = config.image_size
    if config.input_channels == 2:
        rate = torch.rand(count, 1, 2, side, side).pow(4) * torch.rand(count, 1, 1, 1, 1) * 2
        return torch.poisson(rate.expand(-1, config.time_steps, -1, -1, -1))
    images = torch.randn(count, config.input_channels, side, side)
    images = nn.functional.avg_pool2d(images, 3, stride=1, padding=1)
    return images / images.std()


@torch.no_grad()
def settle(model: SpikingTransformer, images: Tensor) -> None:
    """Let the norms see images in training mode, so that their running statistics are those of images."""
    norms = [m for m in model.modules() if hasattr(m, "momentum")]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.5
    model.train()
    for batch in images.split(16):
        model(batch.transpose(0, 1) if batch.ndim == 5 else batch)
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum
