"""Two orders of a map's neurons: ours has channels last, NIR has channels first."""

from __future__ import annotations

import math

import numpy as np

DT = 1e-4  # seconds per step, as snnTorch writes and reads NIR


def nir_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A map (height, width, C) is (C, height, width) in NIR; all else is flat."""
    if len(shape) == 3:
        return (shape[2], shape[0], shape[1])
    return (math.prod(shape),)


def our_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The inverse of `nir_shape`, of maps and vectors."""
    return (shape[1], shape[2], shape[0]) if len(shape) == 3 else shape


def nir_order(shape: tuple[int, ...]) -> np.ndarray:
    """(n,) our flat index of each neuron in NIR's order; `shape` is ours."""
    index = np.arange(math.prod(shape))
    if len(shape) == 3:
        return index.reshape(shape).transpose(2, 0, 1).ravel()
    return index


def channels_first(values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Values that broadcast to our `shape`, in NIR's shape."""
    full = np.broadcast_to(np.asarray(values, dtype=np.float64), shape)
    return full.ravel()[nir_order(shape)].reshape(nir_shape(shape))
