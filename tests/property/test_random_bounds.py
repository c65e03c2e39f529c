"""Fixed point at its borders: sums that float32 holds, and bounds that no input passes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from graphs import Case, assert_same
from hypothesis import given
from hypothesis import strategies as st
from random_graphs import One, examples, one_synapse, wide_cases

from hardware.errors import BackendError, GraphError
from hardware.ir import (
    LIF,
    Dense,
    Input,
    Readout,
    Relay,
    Sparse,
    SpikeGraph,
    run_reference,
)
from hardware.ir.number_formats import number_formats
from hardware.ir.stream import run_stream
from hardware.passes.balance_delays import balance_delays
from hardware.passes.bounds import check_bounds
from hardware.trace import SpikeTrace


def single(
    weight: np.ndarray, bits: int, *, exponent: int = 0, decay: float | None = None, bias: int = 0
) -> SpikeGraph:
    """Graded integers of `bits` bits -> LIF neurons with `decay`, or a readout; in fixed point, T = 2."""
    shape = (len(weight),)
    target = (
        Readout(name="target", shape=shape, bias=np.asarray(bias))
        if decay is None
        else LIF(
            name="target",
            shape=shape,
            membrane_decay=decay,
            threshold=np.asarray(40_000),
            bias=np.asarray(bias),
        )
    )
    populations = [Input(name="x", shape=(weight.shape[1],), bits=bits), target]
    synapses = [Dense(source="x", target="target", weight=weight, exponent=exponent)]
    if decay is not None:
        populations.append(Readout(name="out", shape=(1,), bias=np.asarray(0)))
        ones = np.full((1, len(weight)), 2)
        synapses.append(Dense(source="target", target="out", weight=ones))
    return SpikeGraph(
        populations={p.name: p for p in populations},
        synapses=tuple(synapses),
        time_steps=2,
        arithmetic="fixed",
    )


def outcome(run, graph: SpikeGraph, inputs: np.ndarray) -> SpikeTrace | None:
    """The trace, or None where the numbers leave the target's range."""
    try:
        return run(graph, inputs)
    except BackendError as error:
        assert "accumulated" in str(error)  # noqa: PT017 - it leaves the range or it does not
        return None


@examples(120)
@given(
    bits=st.sampled_from([12, 17, 18, 19, 24]),
    inputs=st.integers(1, 6),
    exponent=st.integers(-8, 2),
    decay=st.sampled_from(
        [None, None, None, 0.0, 0.5, 1.0, 0.125, 4095 / 4096, 1 / 4096, 3001 / 4096]
    ),
    bias=st.sampled_from([0, 1, -1, 4095, -4095]),
    seed=st.integers(0, 2**32 - 1),
)
def test_sums_around_the_border_of_float32_are_exact(
    bits: int, inputs: int, exponent: int, decay: float | None, bias: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.choice([-256, -254, -130, -128, -2, 0, 2, 126, 128, 130, 254], (12, inputs))
    graph = single(weight, bits, exponent=exponent, decay=decay, bias=bias)
    top = 2 ** (bits - 1) - 1
    size = (40, 2, inputs)
    messages = rng.choice([-top, 1 - top, -1, 0, 1, top - 1, top], size)
    messages[20:] = rng.integers(-top, top + 1, (20, 2, inputs))
    for scale in (1, 2**8):  # in range for most exponents, and beyond it for some
        expected = outcome(run_stream, graph, messages // scale)
        got = outcome(run_reference, graph, messages // scale)
        assert (expected is None) == (got is None)
        if expected is not None and got is not None:
            assert_same(expected, got)


@pytest.mark.parametrize(
    ("weights", "bits", "exponent", "expected"),
    [
        ([128], 18, 0, np.float32),  # 128 * 131,071 = 2^24 - 128
        ([128, 2], 18, 0, np.float64),
        ([-128], 18, 0, np.float32),
        ([-130], 18, 0, np.float64),
        ([64], 18, 1, np.float32),
        ([64, 2], 18, 1, np.float64),
        ([128, 2], 18, -8, np.float64),  # what is summed counts, not what arrives
    ],
)
def test_float32_is_taken_up_to_its_border_alone(weights, bits, exponent, expected) -> None:
    graph = single(np.asarray([weights, [0] * len(weights)]), bits, exponent=exponent)
    assert number_formats(graph)["target"] == expected


def test_a_loop_counts_before_the_range_is_checked() -> None:
    """254 * 540 = 137,160 alone is too much; what the neuron sent itself takes 16,384 off."""
    graph = single(np.asarray([[254]]), 12, decay=0.0)
    loop = Dense(source="target", target="target", weight=np.asarray([[-256]]), exponent=6)
    graph = graph.with_(synapses=[*graph.synapses, loop])
    inputs = np.asarray([[[300.0], [540.0]]])
    trace = run_reference(graph, inputs)
    assert trace.spikes["target"].ravel().tolist() == [True, True]
    assert_same(trace, run_stream(graph, inputs))
    assert outcome(run_reference, graph, inputs[:, ::-1]) is None


# --- bounds ------------------------------------------------------------------------------------


@examples(80)
@given(one=one_synapse(arithmetic="fixed"), data=st.data())
def test_the_bound_of_a_layer_is_reached_and_never_passed(one: One, data: st.DataObject) -> None:
    """check_bounds refuses exactly where some input takes some neuron out of its range."""
    synapse = replace(
        one.synapse,
        weight=np.clip(one.synapse.weight * data.draw(st.integers(1, 20)), -256, 254),
        exponent=data.draw(st.integers(-8, 7)),
    )
    source = replace(one.graph.populations["source"], bits=data.draw(st.integers(6, 18)))
    target = one.graph.populations["target"]
    kind = data.draw(st.sampled_from([LIF, Relay, Readout]))
    extra = {} if kind is Relay else {"bias": np.asarray(0)}
    if kind is LIF:
        extra["threshold"] = np.asarray(1)
    target = kind(name="target", shape=target.shape, **extra)
    populations = {"source": source, "target": target}
    graph = SpikeGraph(
        populations=populations
        if kind is Readout
        else populations | {"out": Readout(name="out", shape=(1,), bias=np.asarray(0))},
        synapses=(synapse,),
        time_steps=1,
        arithmetic="fixed",
    )
    assert refuses(graph) == (outcome(run_reference, graph, worst_inputs(graph)) is None)


def refuses(graph: SpikeGraph) -> bool:
    try:
        check_bounds(graph)
    except GraphError as error:
        assert "accumulated input" in str(error) or "has no bound" in str(error)  # noqa: PT017
        return True
    return False


def worst_inputs(graph: SpikeGraph) -> np.ndarray:
    """For the neurons of the target that can be driven furthest, the samples that do it, up and down."""
    source = graph.populations["source"]
    assert isinstance(source, Input)
    matrix = graph.matrix(graph.synapses[0])
    reach = [abs(matrix), matrix.maximum(0), -matrix.minimum(0)]
    rows = {int(np.asarray(m.sum(axis=1)).argmax()) for m in reach}
    weight = matrix[sorted(rows)].toarray()
    if source.kind == "graded":
        up = np.sign(weight) * (2 ** (source.bits - 1) - 1)
        both = np.concatenate([up, -up])
    else:
        both = np.concatenate([weight > 0, weight < 0]).astype(float)
    return both.reshape(-1, 1, *source.shape)


@examples(80)
@given(case=wide_cases(arithmetic="fixed", most=5), seed=st.integers(0, 2**32 - 1))
def test_what_passes_the_bounds_never_leaves_the_range(case: Case, seed: int) -> None:
    """Large weights at random; marks that say that synapses belong to experts, with no gate that keeps it so."""
    rng = np.random.default_rng(seed)
    factor = int(rng.integers(1, 13))
    synapses = [
        replace(
            s,
            weight=np.clip(s.weight * factor, -256, 254),
            exponent=int(rng.integers(-2, 8)),
            expert=("router", int(rng.integers(4))) if rng.random() < 0.5 else None,
        )
        for s in case.graph.synapses
    ]
    graph = replace(case.graph, synapses=tuple(synapses), gate_limits={"router": 1})
    if refuses(graph):
        return
    shape = (6, *case.inputs.shape[1:])
    if graph.data_input.kind == "graded":
        inputs = rng.choice([-1.0, 1.0], shape)
    else:
        inputs = np.ones(shape)
        inputs[1:] = rng.random((5, *shape[1:])) < 0.7
    assert outcome(run_reference, graph, inputs) is not None


def test_a_loop_voids_the_mark_of_an_expert() -> None:
    """Once open, a neuron that excites itself goes on behind a closed gate: both experts count."""
    populations = [
        Input(name="x", shape=(2,), kind="binary"),
        LIF(name="gate", shape=(2,), threshold=np.asarray(1), bias=np.asarray(0), role="gate"),
        *(
            LIF(name=f"h{e}", shape=(1,), threshold=np.asarray(1), bias=np.asarray(0))
            for e in (0, 1)
        ),
        Readout(name="out", shape=(1,), bias=np.asarray(0)),
        Relay(name="sum", shape=(1,)),
    ]
    two, big = np.asarray([2]), np.asarray([[254]])
    synapses = [Dense(source="x", target="gate", weight=2 * np.eye(2, dtype=int))]
    for e in (0, 1):
        mark = {"expert": ("router", e)}
        gate = {"rows": np.asarray([0]), "columns": np.asarray([e]), "weight": two}
        synapses += [
            Sparse(source="gate", target=f"h{e}", **gate, **mark),
            Dense(source=f"h{e}", target="sum", weight=big, exponent=7, **mark),
        ]
    synapses += [
        Dense(source="sum", target="out", weight=np.asarray([[254]]), exponent=0),
    ]
    graph = SpikeGraph(
        populations={p.name: p for p in populations},
        synapses=tuple(synapses),
        time_steps=1,
        arithmetic="fixed",
        gate_limits={"router": 1},
    )
    graph = balance_delays(graph)
    one = 254 * 2**7 * 254
    assert one < 2**23 - 1 < 2 * one
    check_bounds(graph)
    loops = [
        Dense(source=h, target=h, weight=np.asarray([[2]]), expert=("router", e))
        for e, h in ((0, "h0"), (1, "h1"))
    ]
    with pytest.raises(GraphError, match="population 'out': its accumulated input may reach"):
        check_bounds(graph.with_(synapses=[*graph.synapses, *loops]))
