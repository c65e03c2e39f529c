"""What holds for every graph: one meaning in both readings, in both number formats, on disk and in time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from graphs import Case, assert_same, assert_same_graph
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from random_graphs import TRIALS, One, one_synapse, wide_cases

from hardware.errors import BackendError, GraphError
from hardware.ir import (
    LIF,
    Conv2d,
    Dense,
    Input,
    Readout,
    Relay,
    Sparse,
    SpikeGraph,
    run_reference,
)
from hardware.ir.operators import exact_dtype, make_operator
from hardware.ir.stream import run_stream
from hardware.passes.bounds import check_bounds
from hardware.passes.quantise import quantise
from hardware.passes.register_delays import register_delays
from hardware.trace import SpikeTrace


def examples(count: int) -> settings:
    """`count` random examples, a hundred times SPIKINGMOE_TRIALS if that is set."""
    return settings(
        max_examples=100 * TRIALS or count,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )


@examples(120)
@given(case=wide_cases())
def test_the_reference_is_what_the_hardware_steps_give(case: Case) -> None:
    assert_same(run_reference(case.graph, case.inputs), run_stream(case.graph, case.inputs))


@examples(60)
@given(case=wide_cases(arithmetic="float"))
def test_so_it_is_after_quantising(case: Case) -> None:
    fixed = quantised(case.graph)
    assert_same(run_reference(fixed, case.inputs), run_stream(fixed, case.inputs))


@examples(60)
@given(case=wide_cases(longest_loop=1))
def test_and_with_shift_registers_instead_of_delays(case: Case) -> None:
    legal = register_delays(case.graph)
    constants = {p.name for p in legal.of_kind(Input) if p.kind == "constant"}
    assert all(s.delay == 1 for s in legal.synapses if s.source not in constants)
    assert_same(run_reference(case.graph, case.inputs), run_stream(legal, case.inputs))


@settings(examples(40), suppress_health_check=list(HealthCheck))
@given(case=wide_cases())
def test_a_graph_loads_as_it_was_saved(tmp_path, case: Case) -> None:
    path = str(tmp_path / "program")
    case.graph.save(path)
    loaded = SpikeGraph.load(path)
    assert_same_graph(loaded, case.graph)
    assert_same(run_reference(case.graph, case.inputs), run_reference(loaded, case.inputs))


def quantised(graph: SpikeGraph) -> SpikeGraph:
    """The graph in fixed point; graphs that quantising refuses by name are no examples."""
    try:
        return quantise(graph)
    except GraphError as error:
        assert "'" in str(error)  # noqa: PT017 - it names a population or a synapse
        assume(False)
        raise


# --- operators ---------------------------------------------------------------------------------


@examples(200)
@given(one=one_synapse())
def test_a_fast_operator_is_the_matrix_of_its_synapse(one: One) -> None:
    graph, synapse = one.graph, one.synapse
    assert np.array_equal(product(one, np.dtype(np.float64)), by_matrix(one))
    if graph.arithmetic == "fixed":
        largest = {"source": float(np.abs(one.messages).max(initial=1.0))}
        chosen = exact_dtype(graph, "target", [synapse], largest)
        assert chosen == np.float32  # small numbers
        assert np.array_equal(product(one, chosen), by_matrix(one))


def product(one: One, dtype: np.dtype) -> np.ndarray:
    operator = make_operator(one.graph, one.synapse, dtype)
    messages = one.messages.astype(dtype)
    before = messages.copy()
    current = operator(messages)
    assert current.dtype == dtype
    assert np.array_equal(messages, before)  # an operator leaves what it is given alone
    return current


def by_matrix(one: One) -> np.ndarray:
    """(rows, n_target) currents, in integers where the graph has them."""
    exact = np.int64 if one.graph.arithmetic == "fixed" else np.float64
    flat = one.messages.reshape(len(one.messages), -1).astype(exact)
    return (one.graph.matrix(one.synapse).astype(exact) @ flat.T).T


# --- numbers at the borders of the formats -------------------------------------------------------


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
    bits=st.integers(12, 24),
    inputs=st.integers(1, 12),
    exponent=st.integers(-8, 2),
    decay=st.sampled_from([None, 0.0, 0.5, 1.0, 0.125, 4095 / 4096, 1 / 4096, 3001 / 4096]),
    bias=st.sampled_from([0, 1, -1, 4095, -4095]),
    seed=st.integers(0, 2**32 - 1),
)
def test_sums_around_the_border_of_float32_are_exact(
    bits: int, inputs: int, exponent: int, decay: float | None, bias: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    weight = rng.choice([-256, -254, -130, -128, -2, 0, 2, 126, 128, 130, 254], (3, inputs))
    graph = single(weight, bits, exponent=exponent, decay=decay, bias=bias)
    top = 2 ** (bits - 1) - 1
    size = (8, 2, inputs)
    messages = rng.choice([-top, 1 - top, -1, 0, 1, top - 1, top], size)
    messages[4:] = rng.integers(-top, top + 1, (4, 2, inputs))
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
    messages = {"x": 2.0 ** (bits - 1) - 1}
    assert exact_dtype(graph, "target", graph.synapses, messages) == expected


def test_a_readout_adds_its_bias_in_integers() -> None:
    """2^24 + 1 is no float32."""
    graph = single(np.asarray([[2]]), 8, bias=2**24 + 1)
    trace = run_reference(graph, np.full((1, 1, 1), 5.0))
    assert trace.spikes["target"].tolist() == [[[2**24 + 11]] * 2]


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
    assert refuses(graph) == any(
        outcome(run_reference, graph, inputs) is None for inputs in worst_inputs(graph)
    )


def refuses(graph: SpikeGraph) -> bool:
    try:
        check_bounds(graph)
    except GraphError as error:
        assert "accumulated input" in str(error) or "has no bound" in str(error)  # noqa: PT017
        return True
    return False


def worst_inputs(graph: SpikeGraph) -> list[np.ndarray]:
    """For each neuron of the target the samples that drive it furthest, up and down."""
    source = graph.populations["source"]
    assert isinstance(source, Input)
    matrix = graph.matrix(graph.synapses[0]).toarray()
    if source.kind == "graded":
        up = np.sign(matrix) * (2 ** (source.bits - 1) - 1)
        both = np.concatenate([up, -up])
    else:
        both = np.concatenate([matrix > 0, matrix < 0]).astype(float)
    rows = np.unique(both, axis=0).reshape(-1, 1, *source.shape)
    return [rows[start : start + 64] for start in range(0, len(rows), 64)]


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


def test_the_examples_reach_what_they_are_about() -> None:
    """Kernels that jump and reach beyond the map, many groups, long windows, odd decays, late loops."""
    seen: set[str] = set()

    @settings(examples(150), database=None, derandomize=True, max_examples=150)
    @given(case=wide_cases(), one=one_synapse())
    def look(case: Case, one: One) -> None:
        if isinstance(one.synapse, Conv2d):
            synapse = one.synapse
            seen.add(f"groups {synapse.groups}")
            seen.update(
                name
                for name, present in {
                    "stride": max(synapse.stride) > 1,
                    "dilation": max(synapse.dilation) > 1,
                    "padding": max(synapse.padding) > 1,
                    "depthwise": synapse.weight.shape[1] == 1 and synapse.groups > 1,
                }.items()
                if present
            )
        seen.add(f"T = {case.graph.time_steps}")
        seen.update(
            "late loop" for s in case.graph.synapses if s.source == s.target and s.delay > 1
        )
        seen.update(p.kind for p in case.graph.of_kind(Input) if isinstance(p, Input))
        seen.update("odd decay" for p in case.graph.of_kind(LIF) if _is_odd(p))
        seen.update(type(p).__name__ for p in case.graph.populations.values())
        seen.update("listed" for s in case.graph.synapses if isinstance(s, Sparse))

    look()
    missing = {
        *("stride", "dilation", "padding", "depthwise", "groups 130", "groups 256", "groups 128"),
        *("T = 1", "T = 16", "late loop", "constant", "clock", "binary", "graded", "odd decay"),
        *("Relay", "listed"),
    } - seen
    assert not missing


def _is_odd(population: object) -> bool:
    return isinstance(population, LIF) and round(population.membrane_decay * 4096) % 2 == 1
