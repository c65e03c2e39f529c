"""Surrogate derivatives by name, from `snntorch.surrogate`."""

from __future__ import annotations

from snntorch import surrogate as snn_surrogate

from spikingmoe.config import Surrogate
from spikingmoe.functional.lif import SpikeFunction


def make_surrogate(name: Surrogate) -> SpikeFunction:
    """The spike function (u - threshold > 0) whose derivative is replaced.

    atan: Fang 2021, alpha 2.  fast_sigmoid: Zenke and Ganguli 2018, slope 25.  sigmoid: slope 25.
    """
    if name == "atan":
        return snn_surrogate.atan(alpha=2.0)
    if name == "fast_sigmoid":
        return snn_surrogate.fast_sigmoid(slope=25)
    if name == "sigmoid":
        return snn_surrogate.sigmoid(slope=25)
    raise ValueError(f"unknown surrogate {name!r}; use 'atan', 'fast_sigmoid' or 'sigmoid'")
