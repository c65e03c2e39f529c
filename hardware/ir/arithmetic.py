"""The LIF step and the synapse rule in both arithmetics: the numbers that everything must agree on.

Fixed point is Loihi's rule as Lava 0.10's bit-accurate models compute it: v and u have 24 bits,
the accumulated input is shifted left by 6, v decays with truncation toward zero and saturates.
"""

from __future__ import annotations

import numpy as np

from hardware.errors import BackendError
from hardware.ir.nodes import LIF, Input, Population

ACTIVATION_SHIFT = 6  # synaptic input, bias and threshold against v
DECAY_UNITY = 4096
MAX_V = 2**23 - 1
MAX_ACCUMULATED = 131_071  # 2^17 - 1: u = input << 6 must stay within 24 bits, or it wraps


def lif_step(
    population: LIF, v: np.ndarray, current: np.ndarray, *, fixed: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One step of `population`: returns (membrane u, spikes, v after the reset).

    Args:
        v, current: (..., *shape), in real units or as integers; the integers may be held by floats
            (float32 for decays of a power of two: every number that matters is below 2^24).
    """
    number = v.dtype.type
    if not fixed:
        u = number(population.membrane_decay) * v
        u += current
        u += population.bias.astype(v.dtype)
        spikes = u > population.threshold
    elif v.dtype.kind == "i":
        decayed = np.sign(v) * ((np.abs(v) * kept_share(population)) >> 12)
        u = decayed + ((current + population.bias) << ACTIVATION_SHIFT)
        u = np.clip(u, -MAX_V, MAX_V)
        spikes = u > (np.asarray(population.threshold) << ACTIVATION_SHIFT)
    else:
        u = np.trunc(v * number(kept_share(population) / DECAY_UNITY))
        u += (current + population.bias.astype(v.dtype)) * number(2**ACTIVATION_SHIFT)
        np.minimum(u, number(MAX_V), out=u)  # faster than clip
        np.maximum(u, number(-MAX_V), out=u)
        spikes = u > population.threshold.astype(v.dtype) * number(2**ACTIVATION_SHIFT)
    return u, spikes, u * ~spikes


def kept_share(population: LIF) -> int:
    """What is left of v after a step, in 1/4096."""
    return DECAY_UNITY - round(DECAY_UNITY * (1.0 - population.membrane_decay))


def accumulation_limit(population: Population) -> int:
    """Largest magnitude of an integer input: u must not wrap, a graded message has 24 bits."""
    return MAX_ACCUMULATED if isinstance(population, LIF) else MAX_V


def check_range(population: Population, accumulated: np.ndarray) -> None:
    """BackendError if an accumulated integer input is one that the target would wrap."""
    highest, lowest = accumulated.max(initial=0), accumulated.min(initial=0)
    check_reach(population, int(max(highest, -lowest)))


def check_reach(population: Population, reached: int) -> None:
    """BackendError if `reached`, the largest magnitude accumulated, is beyond the range."""
    limit = accumulation_limit(population)
    if reached > limit:
        raise BackendError(
            f"population '{population.name}' accumulated {reached:,}, beyond +-{limit:,}, where the "
            f"target's state would wrap; quantise with smaller weights"
        )


def shift(accumulated: np.ndarray, exponent: int) -> np.ndarray:
    """accumulated * 2^exponent of whole numbers (in integers or floats); a negative exponent floors."""
    if exponent == 0:
        return accumulated
    if accumulated.dtype.kind == "f":
        scaled = accumulated * accumulated.dtype.type(2.0**exponent)
        return scaled if exponent > 0 else np.floor(scaled, out=scaled)
    return accumulated << exponent if exponent >= 0 else accumulated >> -exponent


def quantise_input(population: Input, values: np.ndarray) -> np.ndarray:
    """A graded input's values as the integers that enter a fixed-point graph."""
    top = 2 ** (population.bits - 1) - 1
    return np.clip(np.rint(values * population.scale), -top, top).astype(np.int64)
