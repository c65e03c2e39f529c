"""Populations of the intermediate representation: plain data, one dataclass per kind.

Axes: S samples, T time steps of a window, n neurons (the population's shape, flattened in C order).
Spatial shapes are channels last, `(height, width, channels)`, so that tokens `(N, D)` flatten alike.

In a *float* graph weights, biases and thresholds are real numbers. In a *fixed* graph they are
integers and `scale` says how many integer units stand for 1.0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

InputKind = Literal["graded", "binary", "constant", "clock"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Input:
    """Values from outside, or a signal that every window repeats.

    `graded`: signed numbers of `bits` bits (sign included) up to `limit` in magnitude;
    `binary`: 0 or 1; `constant`: always 1; `clock`: 1 at step `clock_step` of each window, else 0.
    In fixed point a graded value x enters as clip(round(scale * x), -m, m) with m = 2^(bits-1) - 1.
    """

    name: str
    shape: tuple[int, ...]
    kind: InputKind = "graded"
    limit: float = 1.0
    bits: int = 8
    clock_step: int = 0
    scale: float = 1.0
    role: str = "input"


@dataclass(frozen=True, kw_only=True, eq=False)
class LIF:
    """Leaky integrate-and-fire neurons with a hard reset.

    u = membrane_decay * v + current + bias;  spike = u > threshold (strictly);  v = u * (1 - spike).
    v is zero at the first step of each window. `threshold` and `bias` broadcast to `shape`.
    Populations of one `scale_group` (the readers of a residual stream) share one integer scale.
    In fixed point the rule is Loihi's (`hardware.ir.arithmetic`).
    """

    name: str
    shape: tuple[int, ...]
    membrane_decay: float = 0.5
    threshold: np.ndarray = field(default_factory=lambda: np.asarray(1.0))
    bias: np.ndarray = field(default_factory=lambda: np.asarray(0.0))
    scale: float = 1.0
    scale_group: str = ""
    role: str = "neuron"


@dataclass(frozen=True, kw_only=True, eq=False)
class Relay:
    """Memoryless: sends the current it received at this step as one graded spike (if not zero)."""

    name: str
    shape: tuple[int, ...]
    scale: float = 1.0
    scale_group: str = ""
    role: str = "relay"


@dataclass(frozen=True, kw_only=True, eq=False)
class Readout:
    """Non-spiking output: its value at each step is the current received plus `bias`.

    Logits are the mean of the values over the window, divided by `scale`.
    """

    name: str
    shape: tuple[int, ...]
    bias: np.ndarray = field(default_factory=lambda: np.asarray(0.0))
    scale: float = 1.0
    role: str = "readout"


Population = Input | LIF | Relay | Readout

#: Roles whose weights are small whole numbers by construction (AND, OR, counting, delay): in fixed
#: point they take the scale 2, so that weight 1 is the even integer 2 and thresholds of .5 are exact.
LOGIC_ROLES = frozenset({"and", "or", "gate", "choice", "latch", "register"})

#: Roles whose weights stay whole however few bits others have: the above, and relays that count spikes,
#: which keep the scale 1.
WHOLE_ROLES = LOGIC_ROLES | {"count"}

#: Roles whose spikes (..., E) let experts work: of a contest, of a threshold on scores, of a latch.
GATE_ROLES = frozenset({"gate", "threshold", "latch"})


def size(population: Population) -> int:
    """Number of neurons (the product of the shape)."""
    return math.prod(population.shape)


def is_graded(population: Population) -> bool:
    """Whether its messages carry a number instead of being binary spikes."""
    return isinstance(population, Relay) or (
        isinstance(population, Input) and population.kind == "graded"
    )


def is_sourceless_input(population: Population) -> bool:
    """Whether it is a signal every window repeats (`constant` or `clock`)."""
    return isinstance(population, Input) and population.kind in ("constant", "clock")
