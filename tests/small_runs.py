"""Training on a corner of the digits: seconds, not minutes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from spikingmoe.config import ModelConfig, TrainConfig
from spikingmoe.data import load_data
from spikingmoe.data.image_data import ImageData
from spikingmoe.train.checkpoint import read_checkpoint

MODEL = ModelConfig(
    preset="small",
    time_steps=2,
    stem_channels=(4,),
    stem_strides=(2, 2),
    embed_dim=8,
    depth=1,
    num_heads=2,
    expert_width=8,
    num_experts=3,
    prompt_width=4,
)
SETTINGS = TrainConfig(epochs=2, batch_size=32, warmup_epochs=1)


def tiny_options(epochs: int = 1, samples: int = 128) -> list[str]:
    """Options of `spikingmoe train` for a run of about a second on the digits."""
    names = ("time_steps", "stem_channels", "stem_strides", "embed_dim", "depth", "num_heads")
    names += ("expert_width", "num_experts", "prompt_width")
    model = [
        f"--{n.replace('_', '-')}={list(v) if isinstance(v, tuple) else v}"
        for n in names
        for v in [getattr(MODEL, n)]
    ]
    recipe = {"epochs": epochs, "batch-size": 64, "warmup-epochs": 0, "train-samples": samples}
    return [*model, *(f"--{name}={value}" for name, value in recipe.items())]


def small_data(train: int = 160, rest: int = 64) -> ImageData:
    """The first few digits of each split."""
    data = load_data("digits")
    return replace(
        data,
        train=data.train.first(train),
        validation=data.validation.first(rest),
        test=data.test.first(rest),
    )


def flat(value: object, path: str = "") -> dict[str, object]:
    """A nested checkpoint as {path: tensor or value}."""
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, (list, tuple))
        else None
    )
    if items is None:
        return {path: value}
    found: dict[str, object] = {}
    for key, part in items:
        found |= flat(part, f"{path}/{key}")
    return found


def differences(left: Path, right: Path) -> list[str]:
    """Paths at which two checkpoints are not the same bit for bit."""
    a, b = (flat(read_checkpoint(path)) for path in (left, right))
    differing = sorted(set(a) ^ set(b))
    for path in set(a) & set(b):
        x, y = a[path], b[path]
        same = (
            x.dtype == y.dtype and x.shape == y.shape and x.numpy().tobytes() == y.numpy().tobytes()
            if isinstance(x, torch.Tensor) and isinstance(y, torch.Tensor)
            else type(x) is type(y) and x == y
        )
        if not same:
            differing.append(path)
    return differing
