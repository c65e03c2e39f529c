"""Model presets by name.

What shapes them: the stem is the part that accuracy depends on most, so none is a single patch
convolution. Tokens must see their neighbours, which neither QK attention nor experts let them: a full
convolution before each attention in the small ones, a depthwise one where the stream is wide. Token grids are small (8x8) where one CPU core trains, 8x8 to 32x32 over three stages
where a GPU does; an expert is about as wide as the stream, and top-k leaves most of them unused by a
token.
"""

from __future__ import annotations

from dataclasses import fields, replace

from spikingmoe.config.fields import unknown
from spikingmoe.config.model import ModelConfig


def get_preset(name: str) -> ModelConfig:
    """The preset called `name`; ValueError lists the names and the closest one."""
    if name not in PRESETS:
        raise ValueError(unknown("preset", name, PRESETS))
    return PRESETS[name]


def override(config: ModelConfig, **overrides: object) -> ModelConfig:
    """`config` with some fields exchanged; ValueError names a field that does not exist."""
    names = [f.name for f in fields(config)]
    for name in overrides:
        if name not in names:
            raise ValueError(unknown("model option", name, names))
    return replace(config, **overrides)  # type: ignore[arg-type]


#: Trains on one CPU core: about 0.5 M parameters, 8x8 tokens, wide channels only on small maps.
CIFAR_TINY = ModelConfig(
    preset="cifar-tiny",
    input_channels=3,
    image_size=32,
    stem_channels=(32, 64, 64),
    stem_strides=(1, 2, 1, 2),
    embed_dim=96,
    depth=2,
    local_mixing="conv",
    num_heads=4,
    expert_width=96,
    num_experts=4,
    top_k=1,
    prompt_width=32,
    prompt_grid=4,
    relay_stride=2,
)

#: About 1 M parameters, twice as many experts of which two work.
CIFAR_SMALL = replace(
    CIFAR_TINY,
    preset="cifar-small",
    stem_channels=(32, 64, 96),
    embed_dim=128,
    depth=3,
    num_experts=8,
    top_k=2,
)

#: Below 10 M parameters: three stages of D/4 at 32x32, D/2 at 16x16 and D = 384 at 8x8.
CIFAR_BASE = ModelConfig(
    preset="cifar-base",
    input_channels=3,
    image_size=32,
    stem_channels=(48, 96),
    stem_strides=(1, 1, 1),
    embed_dim=384,
    early_depths=(1, 1),
    depth=2,
    local_mixing="dwconv",
    num_heads=8,
    expert_width=512,
    num_experts=8,
    top_k=2,
    prompt_width=64,
    prompt_grid=4,
    relay_stride=2,
)

#: Event cameras: two polarities, T = 16 frames of 48x48, 6x6 tokens.
EVENTS_TINY = replace(
    CIFAR_TINY,
    preset="events-tiny",
    input_channels=2,
    image_size=48,
    time_steps=16,
    stem_strides=(2, 2, 1, 2),
)

#: Frames of 64x64, 8x8 tokens.
EVENTS_SMALL = replace(
    CIFAR_SMALL,
    preset="events-small",
    input_channels=2,
    image_size=64,
    time_steps=16,
    stem_strides=(2, 2, 1, 2),
)

#: About 20 M parameters, 56x56, 28x28 and 14x14 tokens.
IMAGENET_SMALL = replace(
    CIFAR_BASE,
    preset="imagenet-small",
    num_classes=1000,
    image_size=224,
    stem_strides=(2, 1, 2),
    early_depths=(1, 2),
    depth=6,
    expert_width=384,
    prompt_width=128,
)

#: About 72 M parameters, a third of them used by a token.
IMAGENET_BASE = replace(
    IMAGENET_SMALL,
    preset="imagenet-base",
    stem_channels=(64, 128),
    embed_dim=512,
    depth=7,
    expert_width=512,
    num_experts=16,
    top_k=4,
)

PRESETS: dict[str, ModelConfig] = {
    config.preset: config
    for config in (
        ModelConfig(preset="digits"),
        CIFAR_TINY,
        CIFAR_SMALL,
        CIFAR_BASE,
        EVENTS_TINY,
        EVENTS_SMALL,
        IMAGENET_SMALL,
        IMAGENET_BASE,
    )
}

#: What a preset is shaped for; data sets that this package can load by name, or what is missing.
MADE_FOR: dict[str, str] = {
    "digits": "digits",
    "cifar-tiny": "cifar10, cifar100",
    "cifar-small": "cifar10, cifar100",
    "cifar-base": "cifar10, cifar100",
    "events-tiny": "nmnist, dvsgesture, cifar10dvs (events)",
    "events-small": "nmnist, dvsgesture, cifar10dvs (events)",
    "imagenet-small": "ImageNet (planned size)",
    "imagenet-base": "ImageNet (planned size)",
}
