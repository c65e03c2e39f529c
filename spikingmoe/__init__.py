"""Spiking mixtures of experts: train with surrogate gradients, lower to neuromorphic hardware.

from spikingmoe import create_model, list_presets
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = ["create_model", "list_presets"]

if TYPE_CHECKING:
    from spikingmoe.model import create_model


def list_presets() -> list[str]:
    """Names that `create_model` takes."""
    from spikingmoe.config import PRESETS

    return sorted(PRESETS)


def __getattr__(name: str):
    if name == "create_model":  # torch is imported only when a model is built
        from spikingmoe.model import create_model

        return create_model
    raise AttributeError(f"module 'spikingmoe' has no attribute {name!r}")
