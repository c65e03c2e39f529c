"""Data sets by name."""

from __future__ import annotations

from spikingmoe.config import unknown
from spikingmoe.data.digits import load_digits
from spikingmoe.data.image_data import ImageData, Split

DATA_SETS = {"digits": load_digits}


def load_data(name: str) -> ImageData:
    """The data set called `name`; ValueError lists the names."""
    if name not in DATA_SETS:
        raise ValueError(unknown("data set", name, DATA_SETS))
    return DATA_SETS[name]()


__all__ = ["DATA_SETS", "ImageData", "Split", "load_data"]
