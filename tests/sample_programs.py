"""Small programs that use every kind of population, synapse and field."""

from __future__ import annotations

import numpy as np

from hardware.ir import LIF, Conv2d, Dense, Input, Readout, Relay, Sparse, SpikeGraph, one_to_one


def float_program() -> SpikeGraph:
    """A convolution, a gated expert, a relay and a latch with a loop onto itself."""
    rng = np.random.default_rng(0)
    populations = (
        Input(name="image", shape=(4, 4, 2), kind="graded", limit=2.5, bits=7, scale=25.4),
        Input(name="one", shape=(1,), kind="constant"),
        Input(name="clock", shape=(3,), kind="clock", clock_step=1, role="window"),
        LIF(
            name="stem",
            shape=(2, 2, 3),
            membrane_decay=0.1,
            threshold=rng.uniform(0.5, 1.5, (2, 2, 3)),
            bias=np.asarray(5e-324),
        ),
        Relay(name="scores", shape=(3,), scale=0.1),
        LIF(
            name="gate",
            shape=(3,),
            membrane_decay=0.0,
            bias=np.float32([0, 0.1, -0.0]),
            role="gate",
        ),
        LIF(name="hidden", shape=(5,), threshold=np.asarray(1.0, np.float16)),
        Readout(name="logits", shape=(2,), bias=np.asarray([0.1, -(2.0**-1074)]), scale=1 / 3),
    )
    synapses = (
        Conv2d(
            source="image",
            target="stem",
            weight=rng.standard_normal((3, 2, 3, 3)),
            stride=(2, 2),
            padding=(1, 1),
        ),
        Dense(
            source="stem", target="scores", weight=rng.standard_normal((3, 12)).astype(np.float32)
        ),
        one_to_one("scores", "gate", 3),
        one_to_one("gate", "gate", 3, -0.5),
        one_to_one("clock", "gate", 3),
        Sparse(
            source="gate",
            target="hidden",
            rows=np.asarray([4, 0, 2], np.int32),
            columns=np.asarray([0, 1, 2]),
            weight=np.asarray([0.1, -1e308, 5e-324]),
            delay=3,
            expert=("router 0", 1),
        ),
        Dense(source="one", target="hidden", weight=np.ones((1, 5)).T, expert=("router 0", 0)),
        Dense(source="hidden", target="logits", weight=np.zeros((2, 5))),
    )
    return SpikeGraph(
        populations={population.name: population for population in populations},
        synapses=synapses,
        time_steps=4,
        gate_limits={"router 0": 2, "router 1": 1},
        notes={
            "preset": "tiny",
            "accuracy": 0.1,
            "seeds": [1, 2],
            "none": None,
            "π": {"yes": True},
        },
    )


def fixed_program() -> SpikeGraph:
    """Integers of several widths, exponents, a dilated and grouped convolution."""
    rng = np.random.default_rng(1)
    populations = (
        Input(name="image", shape=(5, 4, 2), bits=8, scale=31.75),
        LIF(
            name="stem",
            shape=(3, 2, 4),
            membrane_decay=2048 / 4096,
            threshold=np.asarray(64),
            bias=rng.integers(-9, 9, (3, 2, 4)).astype(np.int16),
            scale=64.0,
        ),
        Readout(name="logits", shape=(3,), bias=np.asarray([1, 2, -3])),
    )
    synapses = (
        Conv2d(
            source="image",
            target="stem",
            weight=2 * rng.integers(-100, 100, (4, 1, 2, 2)),
            dilation=(2, 2),
            groups=2,
            exponent=-3,
        ),
        Dense(
            source="stem",
            target="logits",
            weight=(2 * rng.integers(-60, 60, (3, 24))).astype(np.int8),
            exponent=2,
        ),
    )
    return SpikeGraph(
        populations={population.name: population for population in populations},
        synapses=synapses,
        time_steps=2,
        arithmetic="fixed",
    )
