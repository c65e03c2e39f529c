"""Does a data set fit a model?"""

from __future__ import annotations

from spikingmoe.config import ModelConfig
from spikingmoe.data.image_data import ImageData


def check_shapes(config: ModelConfig, data: ImageData) -> None:
    """ValueError unless images, frames and classes of the data are those that the model takes."""
    model, name = f"model '{config.preset}'", f"data '{data.name}'"
    shape = (config.input_channels, config.image_size, config.image_size)
    if data.input_shape != shape:
        channels, height, width = data.input_shape
        options = f"--input-channels={channels} --image-size={height}" if height == width else ""
        raise ValueError(
            f"{name} has images {data.input_shape}; {model} takes {shape}; use another preset"
            + (f", or {options}" if options else "")
        )
    if data.time_steps not in (None, config.time_steps):
        raise ValueError(
            f"{name} has {data.time_steps} frames per sample; {model} takes {config.time_steps}; "
            f"load the data with time_steps={config.time_steps}"
        )
    if len(data.classes) != config.num_classes:
        raise ValueError(
            f"{name} has {len(data.classes)} classes; {model} has num_classes={config.num_classes}; "
            f"use --num-classes={len(data.classes)}"
        )
