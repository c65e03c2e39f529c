"""The reference, the hardware-step oracle and Lava's processes, stock and fused, send the same spikes."""

from __future__ import annotations

import os
from itertools import pairwise
from typing import Literal

import numpy as np
import pytest
from graphs import Case, assert_same, cases
from hypothesis import HealthCheck, Phase, given, settings

from hardware.errors import BackendError, GraphError
from hardware.ir import (
    LIF,
    Conv2d,
    Dense,
    Input,
    Readout,
    Sparse,
    SpikeGraph,
    one_to_one,
    run_reference,
)
from hardware.ir.stream import run_stream
from hardware.lava.run import run_lava
from hardware.lava.settings import Settings
from hardware.passes.balance_delays import balance_delays
from hardware.passes.register_delays import register_delays
from hardware.simulate import simulate

FEW = settings(
    max_examples=5,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
STOCK = Settings(network="stock")
ARITHMETICS = pytest.mark.parametrize("fixed", [False, True], ids=["float", "fixed"])


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(case=cases())
def test_reference_is_what_the_hardware_steps_give(case: Case) -> None:
    expected = run_reference(case.graph, case.inputs)
    assert_same(expected, run_stream(case.graph, case.inputs))


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(case=cases())
def test_shift_registers_replace_delays_exactly(case: Case) -> None:
    legal = register_delays(case.graph)
    constants = {p.name for p in legal.of_kind(Input) if p.kind == "constant"}
    assert all(s.delay == 1 for s in legal.synapses if s.source not in constants)
    assert_same(run_reference(case.graph, case.inputs), run_stream(legal, case.inputs))


@pytest.mark.lava
@FEW
@given(case=cases(arithmetic="float", least=4, most=9))
def test_stock_lava_equals_the_reference_in_float(case: Case) -> None:
    assert_same(
        run_reference(case.graph, case.inputs), run_lava(case.graph, case.inputs, settings=STOCK)
    )


@pytest.mark.lava
@FEW
@given(case=cases(arithmetic="fixed", least=4, most=9))
def test_stock_lava_equals_the_reference_in_fixed_point(case: Case) -> None:
    assert_same(
        run_reference(case.graph, case.inputs), run_lava(case.graph, case.inputs, settings=STOCK)
    )


def logic(*, fixed: bool, threshold: float, **options) -> LIF:
    """A gate: no memory; in fixed point weight 1 is the even integer 2, so thresholds double."""
    value = int(2 * threshold) if fixed else threshold
    zero = np.asarray(0 if fixed else 0.0)
    return LIF(membrane_decay=0.0, threshold=np.asarray(value), bias=zero, **options)


def wire(source: str, target: str, pairs: list[tuple[int, int]], weight: float, fixed: bool):
    """A Sparse synapse from (row, column) pairs, with weight 1 as 2 in fixed point."""
    rows, columns = np.array(pairs).T
    values = np.full(len(pairs), int(2 * weight) if fixed else float(weight))
    return Sparse(source=source, target=target, rows=rows, columns=columns, weight=values)


def small_graph(populations, synapses, *, time_steps: int, fixed: bool) -> SpikeGraph:
    """Adds a readout that sums the last population, and balances the delays."""
    last, zero = populations[-1], np.asarray(0 if fixed else 0.0)
    readout = Readout(name="out", shape=last.shape, bias=zero, scale=2.0 if fixed else 1.0)
    n = int(np.prod(last.shape))
    synapses = [*synapses, wire(last.name, "out", [(i, i) for i in range(n)], 1, fixed)]
    graph = SpikeGraph(
        populations={p.name: p for p in [*populations, readout]},
        synapses=tuple(synapses),
        time_steps=time_steps,
        arithmetic="fixed" if fixed else "float",
    )
    return balance_delays(graph)


def everywhere(graph: SpikeGraph, inputs: np.ndarray, stock: Settings = STOCK):
    """The trace of the reference, after checking that Lava and the hardware steps give the same."""
    expected = run_reference(graph, inputs)
    assert_same(expected, run_stream(graph, inputs))
    assert_same(expected, run_lava(graph, inputs, settings=stock))
    assert_same(expected, run_lava(graph, inputs, settings=Settings(segments=2, at_once=2)))
    return expected


@pytest.mark.lava
@ARITHMETICS
def test_and_gate(fixed: bool) -> None:
    graph = small_graph(
        [
            Input(name="ab", shape=(2,), kind="binary"),
            logic(name="and", shape=(1,), threshold=1.5, fixed=fixed),
        ],
        [wire("ab", "and", [(0, 0), (0, 1)], 1, fixed)],
        time_steps=1,
        fixed=fixed,
    )
    table = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], float)
    trace = everywhere(graph, table[:, None])
    assert trace.spikes["and"][:, 0, 0].tolist() == [False, False, False, True]
    assert trace.logits[:, 0].tolist() == [0, 0, 0, 1]


@pytest.mark.lava
@ARITHMETICS
def test_latch_holds_a_decision_for_its_window_only(fixed: bool) -> None:
    """latch <- 2 AND(g, clock at hold_step) + its last spike - clock at step 0 (DESIGN: window hold)."""
    hold, steps = 1, 4
    graph = small_graph(
        [
            Input(name="g", shape=(1,), kind="binary"),
            Input(name="at_hold", shape=(1,), kind="clock", clock_step=hold),
            Input(name="at_start", shape=(1,), kind="clock", clock_step=0),
            logic(name="taken", shape=(1,), threshold=1.5, fixed=fixed),
            logic(name="latch", shape=(1,), threshold=0.5, fixed=fixed),
        ],
        [
            wire("g", "taken", [(0, 0)], 1, fixed),
            wire("at_hold", "taken", [(0, 0)], 1, fixed),
            wire("taken", "latch", [(0, 0)], 2, fixed),
            wire("latch", "latch", [(0, 0)], 1, fixed),
            wire("at_start", "latch", [(0, 0)], -1, fixed),
        ],
        time_steps=steps,
        fixed=fixed,
    )
    g = np.array([[1, 1, 0, 0], [1, 0, 1, 1], [0, 1, 1, 1], [0, 0, 0, 0]], float)
    trace = everywhere(graph, g[:, :, None])
    held = [[False] + [bool(row[hold])] * 3 for row in g]
    assert trace.spikes["latch"][:, :, 0].tolist() == held


@pytest.mark.lava
@ARITHMETICS
def test_leaky_neuron_by_hand(fixed: bool) -> None:
    """decay 1/2, threshold 1: u = .75, 1.125 (spike), .75, .375 | the next sample starts at zero."""
    unit = 64 if fixed else 1.0
    zero = np.asarray(0 if fixed else 0.0)
    lif = LIF(name="n", shape=(1,), threshold=np.asarray(unit), bias=zero, scale=float(unit))
    weight = np.array([[48 if fixed else 0.75]])
    graph = small_graph(
        [Input(name="x", shape=(1,), kind="binary"), lif],
        [Dense(source="x", target="n", weight=weight)],
        time_steps=4,
        fixed=fixed,
    )
    x = np.array([[1, 1, 1, 0], [1, 0, 1, 0]], float)
    trace = everywhere(graph, x[:, :, None])
    # second sample: .75, .375, .9375, .46875; if the .375 of the first one stayed, it would spike
    assert trace.spikes["n"][:, :, 0].tolist() == [[False, True, False, False], [False] * 4]


@pytest.mark.lava
@pytest.mark.parametrize("conv_as", ["conv", "sparse"])
@ARITHMETICS
def test_convolution_as_either_stock_process(
    fixed: bool, conv_as: Literal["conv", "sparse"]
) -> None:
    rng = np.random.default_rng(3)
    weight = rng.integers(-9, 10, (4, 1, 3, 3)) * 4

    def lif(name: str, shape: tuple[int, ...]) -> LIF:
        threshold, zero = (40, 0) if fixed else (0.6, 0.0)
        return LIF(name=name, shape=shape, threshold=np.asarray(threshold), bias=np.asarray(zero))

    graph = small_graph(
        [
            Input(name="image", shape=(5, 4, 2), kind="graded", bits=5, scale=15.0),
            lif("a", (3, 2, 4)),
            lif("b", (3, 2, 2)),
        ],
        [
            Conv2d(
                source="image",
                target="a",
                weight=weight if fixed else weight / 32,
                stride=(2, 2),
                padding=(1, 1),
                groups=2,
                exponent=-1 if fixed else 0,
            ),
            Conv2d(
                source="a",
                target="b",
                weight=rng.integers(-9, 10, (2, 4, 1, 1)) * (2 if fixed else 1),
                exponent=1 if fixed else 0,
            ),
        ],
        time_steps=3,
        fixed=fixed,
    )
    stock = Settings(network="stock", conv_as=conv_as)
    trace = everywhere(graph, rng.integers(-8, 9, (3, 1, 5, 4, 2)) / 8, stock)
    assert 0 < trace.firing_rate("b") < 1


@pytest.mark.lava
def test_schedules_agree_and_records_are_what_was_asked_for() -> None:
    graph, inputs = skip_graph()
    free = run_lava(graph, inputs, record=["late", "x"], settings=STOCK)
    stepwise = run_lava(
        graph,
        inputs,
        record=["late", "x"],
        settings=Settings(network="stock", schedule="stepwise"),
    )
    assert list(free.spikes) == ["late", "x"]
    assert_same(free, stepwise)
    expected = run_reference(graph, inputs, record=["x", "late"])
    assert_same(expected, free)


@pytest.mark.lava
@pytest.mark.parametrize("backend", ["lava", "lava-stock"])
def test_simulate_gives_a_described_trace(backend: str) -> None:
    graph, inputs = skip_graph()
    calls: list[tuple[int, int]] = []
    trace = simulate(
        graph, inputs, backend=backend, progress=lambda done, of: calls.append((done, of))
    )
    assert calls[-1] == (5, 5)
    assert trace.meta["backend"] == backend
    assert trace.meta["fingerprint"] == graph.fingerprint
    source, lifs, synapses, register, recorder = 1, 3, 5, 1 + 2, 1  # a register has two synapses
    stock = source + lifs + synapses + register + recorder
    cores = len(os.sched_getaffinity(0))
    assert trace.meta["processes"] == (stock if backend == "lava-stock" else min(cores, 4))
    assert trace.meta["hardware_steps"] == 5 * 2 + 4
    assert trace.meta["step_ms"] > 0
    assert trace.samples == 5


def skip_graph() -> tuple[SpikeGraph, np.ndarray]:
    """x -> a -> b -> late, and x -> late."""
    rng = np.random.default_rng(5)
    lifs = [LIF(name=n, shape=(4,), threshold=np.asarray(0.5)) for n in ("a", "b", "late")]
    chain = ["x", "a", "b", "late"]
    synapses = [
        Dense(source=s, target=t, weight=rng.integers(-4, 9, (4, 4)) / 8)
        for s, t in [*pairwise(chain), ("x", "late")]
    ]
    graph = small_graph(
        [Input(name="x", shape=(4,), kind="binary"), *lifs], synapses, time_steps=2, fixed=False
    )
    return graph, (rng.random((5, 2, 4)) < 0.5).astype(float)


def test_refusals_name_the_fault() -> None:
    graph, inputs = skip_graph()
    with pytest.raises(
        BackendError, match=r"backend 'spinnaker' is unknown; use one of reference, lava"
    ):
        simulate(graph, inputs, backend="spinnaker")
    with pytest.raises(
        BackendError, match=r"images have shape \(5, 3, 4\); 'x' needs \(samples, 4\)"
    ):
        simulate(graph, inputs[:, [0, 0, 0]])
    with pytest.raises(BackendError, match="record='z': the graph has no such population"):
        simulate(graph, inputs, record=["z"])
    with pytest.raises(GraphError, match="arithmetic 'double' is unknown"):
        simulate(graph, inputs, arithmetic="double")
    unbalanced = graph.with_(
        synapses=[*graph.synapses, one_to_one("x", "late", 4)],
    )
    with pytest.raises(BackendError, match="Lava needs balanced delays"):
        run_lava(unbalanced, inputs)


def test_images_come_channels_first_and_as_any_array() -> None:
    image = Input(name="image", shape=(2, 3, 1), kind="graded")
    graph = small_graph([image], [], time_steps=2, fixed=False)
    images = np.arange(6.0).reshape(1, 1, 2, 3) / 8
    trace = simulate(graph, images.tolist())
    assert np.array_equal(trace.spikes["image"], np.repeat(images.reshape(1, 1, 2, 3, 1), 2, 1))
    frames = np.stack([images, 2 * images], axis=1)
    assert np.array_equal(
        simulate(graph, frames, backend="stream").spikes["image"], frames.reshape(1, 2, 2, 3, 1)
    )
