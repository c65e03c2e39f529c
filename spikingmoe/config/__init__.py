"""Configuration: frozen, keyword-only dataclasses, validated once when they are built."""

from __future__ import annotations

from spikingmoe.config.fields import unknown
from spikingmoe.config.model import ModelConfig, Surrogate, model_config
from spikingmoe.config.presets import PRESETS, get_preset, override
from spikingmoe.config.recipes import Recipe, get_recipe, list_recipes
from spikingmoe.config.run import RunOptions
from spikingmoe.config.train import TrainConfig, train_config
from spikingmoe.config.twins import (
    dense_twin,
    quantised_bits,
    quantised_relu_twin,
    relu_twin,
)

__all__ = [
    "PRESETS",
    "ModelConfig",
    "Recipe",
    "RunOptions",
    "Surrogate",
    "TrainConfig",
    "dense_twin",
    "get_preset",
    "get_recipe",
    "list_recipes",
    "model_config",
    "override",
    "quantised_bits",
    "quantised_relu_twin",
    "relu_twin",
    "train_config",
    "unknown",
]
