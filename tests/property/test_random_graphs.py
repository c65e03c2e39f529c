"""What holds for every graph: one meaning in both readings, in both number formats, on disk and in time."""

from __future__ import annotations

import numpy as np
from graphs import Case, assert_same, assert_same_graph
from hypothesis import HealthCheck, assume, given, settings
from random_graphs import One, examples, one_synapse, wide_cases

from hardware.errors import GraphError
from hardware.ir import (
    LIF,
    Conv2d,
    Input,
    Sparse,
    SpikeGraph,
    run_reference,
)
from hardware.ir.arithmetic import shift
from hardware.ir.number_formats import number_formats
from hardware.ir.operators import make_operator
from hardware.ir.stream import run_stream
from hardware.passes.quantise import quantise
from hardware.passes.register_delays import register_delays


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
    graph = one.graph
    assert np.array_equal(product(one, np.dtype(np.float64)), by_matrix(one))
    if graph.arithmetic == "fixed":
        chosen = number_formats(graph)["target"]
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
    sums = (one.graph.matrix(one.synapse).astype(exact) @ flat.T).T
    return shift(sums, one.synapse.exponent)


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
