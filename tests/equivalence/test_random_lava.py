"""Lava's stock processes on wide random graphs: what lowering makes, and what it could make."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import Case, assert_same
from hypothesis import HealthCheck, Phase, given, settings
from random_graphs import MANY_GROUPS, TRIALS, wide_cases

from hardware.ir import LIF, Conv2d, Input, Readout, SpikeGraph, one_to_one, run_reference
from hardware.lava.run import run_lava
from hardware.lava.settings import Settings

pytestmark = pytest.mark.lava
FEW = settings(
    max_examples=TRIALS or 2,
    deadline=None,
    derandomize=not TRIALS,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)

STOCK = Settings(network="stock")


@FEW
@given(case=wide_cases(arithmetic="float", least=5, most=8, longest_loop=1))
def test_wide_graphs_in_float(case: Case) -> None:
    assert_same(
        run_reference(case.graph, case.inputs), run_lava(case.graph, case.inputs, settings=STOCK)
    )


@FEW
@given(case=wide_cases(arithmetic="fixed", least=5, most=8, longest_loop=1))
def test_wide_graphs_in_fixed_point(case: Case) -> None:
    assert_same(
        run_reference(case.graph, case.inputs), run_lava(case.graph, case.inputs, settings=STOCK)
    )


@pytest.mark.parametrize("fixed", [False, True], ids=["float", "fixed"])
def test_many_groups(fixed: bool) -> None:
    """Stock Conv keeps groups in int8: 128 gave silent zeros."""
    rng = np.random.default_rng(4)
    zero = np.asarray(0 if fixed else 0.0)
    populations, synapses = [], []
    for groups in MANY_GROUPS:
        source = f"x{groups}"
        kind = "binary" if groups == MANY_GROUPS[0] else "clock"
        populations.append(Input(name=source, shape=(3, 2, groups), kind=kind))
        shape = (2, 2, groups)
        weight = rng.integers(-4, 9, (groups, 1, 2, 1)) * 2
        populations.append(
            LIF(name=f"c{groups}", shape=shape, threshold=np.asarray(zero + 3), bias=zero)
        )
        synapses.append(
            Conv2d(
                source=source,
                target=f"c{groups}",
                weight=weight if fixed else weight / 4,
                groups=groups,
            )
        )
    size = 2 * 2 * MANY_GROUPS[0]
    populations.append(Readout(name="out", shape=(size,), bias=zero))
    wire = one_to_one(f"c{MANY_GROUPS[0]}", "out", size, 2)
    weight = wire.weight.astype(int) if fixed else wire.weight
    synapses.append(type(wire)(**{**vars(wire), "weight": weight}))
    graph = SpikeGraph(
        populations={p.name: p for p in populations},
        synapses=tuple(synapses),
        time_steps=2,
        arithmetic="fixed" if fixed else "float",
    )
    inputs = (rng.random((2, 2, 3, 2, MANY_GROUPS[0])) < 0.5).astype(float)
    expected = run_reference(graph, inputs)
    for groups in MANY_GROUPS:
        assert 0 < expected.firing_rate(f"c{groups}") < 1
    assert_same(expected, run_lava(graph, inputs, settings=STOCK))
