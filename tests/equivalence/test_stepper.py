"""Hardware steps a few at a time, in one piece and in segments: the spikes of the reference."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import Case, assert_same, cases
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hardware.errors import BackendError
from hardware.ir import LIF, Dense, Input, SpikeGraph, run_reference
from hardware.ir.stepper import Stepper
from hardware.ir.stream import InputRows, run_stream, stream_steps, window_view
from hardware.lava.segments import Segment, cut_into_segments
from hardware.passes.register_delays import register_delays
from hardware.trace import SpikeTrace

MANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def run_segments(
    graph: SpikeGraph, inputs: np.ndarray, segments: tuple[Segment, ...], at_once: int
) -> SpikeTrace:
    """All populations, from steppers that hand each other the messages of a few steps."""
    steps = stream_steps(graph, len(inputs))
    signals = {p.name: InputRows(graph, p, inputs) for p in inputs_of(graph)}
    steppers = [Stepper(graph, s.names, at_most=at_once) for s in segments]
    sent: dict[str, list[np.ndarray]] = {name: [] for name in graph.populations}
    for first in range(0, steps, at_once):
        count = min(at_once, steps - first)
        now = {name: rows.rows(first, count) for name, rows in signals.items()}
        for segment, stepper in zip(segments, steppers, strict=True):
            stepper.advance(count, {n: now[n] for n in (*segment.sources, *segment.inputs)})
            now |= {name: stepper.sent(name).copy() for name in segment.names}
        for name, rows in now.items():
            sent[name].append(rows)
    spikes = {
        name: window_view(graph, name, np.concatenate(rows), len(inputs))
        for name, rows in sent.items()
    }
    return SpikeTrace(spikes=spikes, logits=np.zeros(0))


def inputs_of(graph: SpikeGraph) -> list[Input]:
    return [p for p in graph.populations.values() if isinstance(p, Input)]


def assert_equal_messages(expected: SpikeTrace, got: SpikeTrace) -> None:
    """Numbers are compared as numbers: a stepper holds integers in floats."""
    as_is = {n: v.astype(expected.spikes[n].dtype) for n, v in got.spikes.items()}
    assert_same(expected, SpikeTrace(spikes=as_is, logits=expected.logits))


@MANY
@given(case=cases(), at_once=st.integers(1, 12), count=st.integers(1, 4))
def test_segments_send_what_the_reference_sends(case: Case, at_once: int, count: int) -> None:
    segments = cut_into_segments(case.graph, count)
    got = run_segments(case.graph, case.inputs, segments, at_once)
    assert_equal_messages(run_reference(case.graph, case.inputs), got)


@MANY
@given(case=cases(), at_once=st.integers(1, 12))
def test_shift_registers_are_stepped_too(case: Case, at_once: int) -> None:
    """Loops whose delay is one step, in a graph that the stream alone can run."""
    legal = register_delays(case.graph)
    got = run_segments(legal, case.inputs, cut_into_segments(legal, 2), at_once)
    assert_equal_messages(run_stream(legal, case.inputs), got)


def test_a_range_that_is_left_names_the_population() -> None:
    graph = SpikeGraph(
        populations={
            "x": Input(name="x", shape=(600,), kind="binary"),
            "n": LIF(name="n", shape=(1,), threshold=np.asarray(1), bias=np.asarray(0)),
        },
        synapses=(Dense(source="x", target="n", weight=np.full((1, 600), 254)),),
        time_steps=1,
        arithmetic="fixed",
    )
    stepper = Stepper(graph, ["n"], at_most=4)
    stepper.advance(1, {"x": np.ones((1, 600), bool)})  # arrives one step later
    with pytest.raises(
        BackendError, match=r"population 'n' accumulated 152,400, beyond \+-131,071"
    ):
        stepper.advance(1, {"x": np.zeros((1, 600), bool)})
