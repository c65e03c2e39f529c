"""What the tests of the fused kernels share: cases whose spikes cannot depend on rounding."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from spikingmoe.functional.lif import lif
from spikingmoe.functional.surrogate import make_surrogate
from spikingmoe.kernels import NeuronConstants, cpu

SURROGATES = ("atan", "fast_sigmoid", "sigmoid")
MARGIN = 1e-5  # far more than float32 rounds membranes of a few units by

needs_kernels = pytest.mark.skipif(not cpu.available(), reason="the CPU kernels do not compile")


def constants(**changes: object) -> NeuronConstants:
    """Default neurons, but for `changes`."""
    default = {
        "membrane_decay": 0.5,
        "threshold": 1.0,
        "surrogate": "atan",
        "detach_reset": False,
    }
    return NeuronConstants(**{**default, **changes})  # type: ignore[arg-type]


def plain_lif(current: Tensor, neurons: NeuronConstants) -> Tensor:
    """The equation, step by step, in the dtype of `current`."""
    return lif(
        current,
        membrane_decay=neurons.membrane_decay,
        threshold=neurons.threshold,
        spike_function=make_surrogate(neurons.surrogate),
        detach_reset=neurons.detach_reset,
    )


def margin(current: Tensor, neurons: NeuronConstants) -> float:
    """How near any membrane comes to the threshold; current (T, ...)."""
    v, nearest = torch.zeros_like(current[0]), float("inf")
    for current_t in current.detach():
        u = neurons.membrane_decay * v + current_t
        nearest = min(nearest, float((u - neurons.threshold).abs().min()))
        v = torch.where(u > neurons.threshold, 0.0, u)
    return nearest


def first_clear_seed(nearest: Callable[[int], float]) -> int:
    """The first seed whose case keeps `MARGIN` from the threshold."""
    for seed in range(100):
        if nearest(seed) > MARGIN:
            return seed
    raise AssertionError("no case keeps away from the threshold")


def assert_near(found: Tensor, expected: Tensor, relative: float, what: str = "") -> None:
    """Within `relative` of the largest expected value: terms of its size cancel in the others."""
    found, expected = found.detach(), expected.detach()
    largest = float(expected.abs().max())
    assert largest > 0, f"{what}: nothing to compare"
    worst = float((found.double() - expected.double()).abs().max()) / largest
    assert worst < relative, f"{what}: off by {worst:.2g} of the largest value"
