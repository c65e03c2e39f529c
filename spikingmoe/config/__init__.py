"""Configuration: frozen, keyword-only dataclasses, validated once when they are built."""

from __future__ import annotations

from spikingmoe.config.fields import unknown
from spikingmoe.config.model import ModelConfig, Surrogate, model_config
from spikingmoe.config.presets import PRESETS, get_preset, override
from spikingmoe.config.run import RunOptions
from spikingmoe.config.train import TrainConfig, train_config
from spikingmoe.config.twins import dense_twin, relu_twin

__all__ = [
    "PRESETS",
    "ModelConfig",
    "RunOptions",
    "Surrogate",
    "TrainConfig",
    "dense_twin",
    "get_preset",
    "model_config",
    "override",
    "relu_twin",
    "train_config",
    "unknown",
]
