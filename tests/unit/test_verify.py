"""Comparing traces: an injected error is found where it was put, and wrong traces are refused."""

from dataclasses import replace

import numpy as np
import pytest

from hardware.errors import BackendError
from hardware.ir import LIF, Dense, Input, Readout, Relay, SpikeGraph, one_to_one, run_reference
from hardware.ir.reference import membranes
from hardware.passes.balance_delays import balance_delays
from hardware.passes.quantise import quantise
from hardware.trace import SpikeTrace
from hardware.verify import GRADED_TOLERANCE, compare_traces, rounding_divergence


@pytest.fixture
def graph():
    """input 3 -> a 4 -> relay 4 -> b 2 -> readout 2, and input -> b; T = 3."""
    rng = np.random.default_rng(0)

    def dense(source, target, n, m):
        return Dense(source=source, target=target, weight=rng.integers(-3, 5, (n, m)) / 4)

    return balance_delays(
        SpikeGraph(
            populations={
                p.name: p
                for p in (
                    Input(name="input", shape=(3,), kind="graded", limit=2.0),
                    LIF(name="a", shape=(4,)),
                    Relay(name="relay", shape=(4,)),
                    LIF(name="b", shape=(2,), threshold=np.array([0.5, 1.5])),
                    Readout(name="out", shape=(2,)),
                )
            },
            synapses=(
                dense("input", "a", 4, 3),
                dense("a", "relay", 4, 4),
                dense("relay", "b", 2, 4),
                dense("input", "b", 2, 3),
                one_to_one("b", "out", 2),
            ),
            time_steps=3,
        )
    )


@pytest.fixture
def inputs():
    return np.random.default_rng(1).integers(-8, 9, (5, 3, 3)) / 4


@pytest.fixture
def trace(graph, inputs):
    return run_reference(graph, inputs)


def changed(trace, flips=(), **fields):
    """A copy of a trace with some binary messages flipped."""
    spikes = {name: values.copy() for name, values in trace.spikes.items()}
    for name, place in flips:
        spikes[name][place] = ~spikes[name][place]
    return SpikeTrace(spikes=spikes, logits=trace.logits, meta={**trace.meta, **fields})


def test_equal_traces_are_the_same(graph, trace):
    comparison = compare_traces(graph, trace, changed(trace))
    assert comparison.same
    assert comparison.first is None
    # a: 5 x 3 x 4, b: 5 x 3 x 2; graded messages are compared by distance in floating point
    assert comparison.compared == 5 * 3 * (4 + 2)
    assert comparison.graded_max_difference == 0
    assert comparison.as_dict()["differing"] == 0


def test_a_flip_is_found_where_it_is(graph, trace):
    comparison = compare_traces(graph, trace, changed(trace, [("b", (3, 1, 0))]))
    first = comparison.first
    assert (first.population, first.sample, first.step, first.index) == ("b", 3, 1, (0,))
    assert {first.left, first.right} == {0.0, 1.0}
    assert first.left == float(trace.spikes["b"][3, 1, 0])
    assert not comparison.same
    assert comparison.differing == 1
    assert comparison.by_population["b"] == (30, 1)
    assert comparison.by_population["a"] == (60, 0)
    assert "population 'b', sample 3, step 1, neuron (0,)" in str(first)


def test_the_earliest_in_hardware_time_wins(graph, trace):
    """a has depth 1, b depth 3: a's step 2 comes with b's step 0, and a stands first in the order."""
    assert (graph.depth["a"], graph.depth["b"]) == (1, 3)
    for flips, expected in (
        ([("b", (0, 0, 0)), ("a", (4, 2, 1))], ("a", 4, 2)),
        ([("b", (0, 0, 1)), ("a", (4, 1, 3))], ("a", 4, 1)),
        ([("b", (2, 1, 0)), ("b", (4, 0, 1)), ("b", (0, 2, 1))], ("b", 4, 0)),
    ):
        first = compare_traces(graph, trace, changed(trace, flips)).first
        assert (first.population, first.sample, first.step) == expected
    slow = balance_delays(
        graph.with_(synapses=[s for s in graph.synapses if s.source != "input" or s.target == "a"])
    )
    moved = changed(trace, fingerprint=slow.fingerprint)
    flipped = changed(moved, [("b", (0, 0, 0)), ("a", (1, 2, 0))])
    assert compare_traces(slow, moved, flipped).first.population == "a"


def test_graded_messages_may_round_but_not_differ(graph, trace):
    near, far = changed(trace), changed(trace)
    near.spikes["relay"][0, 0, 0] += GRADED_TOLERANCE / 2
    far.spikes["relay"][0, 0, 0] += GRADED_TOLERANCE * 2
    assert compare_traces(graph, trace, near).same
    comparison = compare_traces(graph, trace, far)
    assert not comparison.same
    assert comparison.differing == 0
    assert comparison.graded_max_difference == pytest.approx(2 * GRADED_TOLERANCE)
    far.spikes["relay"][0, 0, 0] = np.nan
    assert not compare_traces(graph, trace, far).same


def test_integers_must_be_equal_in_fixed_point(graph, inputs):
    # A relay passes numbers on at the scale of its reader, so its weights must be whole there.
    by_one = [one_to_one("relay", "b", 2) if s.source == "relay" else s for s in graph.synapses]
    fixed = quantise(graph.with_(synapses=by_one))
    trace = run_reference(fixed, inputs)
    other = changed(trace)
    other.spikes["relay"][2, 1, 3] += 1
    comparison = compare_traces(fixed, trace, other)
    assert comparison.differing == 1
    assert comparison.first.population == "relay"
    assert comparison.first.index == (3,)


def test_predictions_count(graph, trace):
    other = changed(trace)
    other.logits[...] = trace.logits
    flipped = SpikeTrace(spikes=other.spikes, logits=trace.logits[:, ::-1].copy(), meta=other.meta)
    differ = int((trace.logits.argmax(1) != flipped.logits.argmax(1)).sum())
    assert differ > 0
    comparison = compare_traces(graph, trace, flipped)
    assert comparison.predictions_differ == differ
    assert not comparison.same


def test_traces_that_cannot_be_compared_are_refused(graph, trace, inputs):
    with pytest.raises(BackendError, match="belongs to another graph"):
        compare_traces(graph, trace, changed(trace, fingerprint="0" * 64))
    lacking = changed(trace)
    del lacking.spikes["a"]
    for pair in ((trace, lacking), (lacking, trace)):
        with pytest.raises(BackendError, match=r"lacks \['a'\]; record all"):
            compare_traces(graph, *pair)
    with pytest.raises(BackendError, match="5 samples against 4"):
        compare_traces(graph, trace, run_reference(graph, inputs[:4]))
    with pytest.raises(BackendError, match="belongs to another graph"):
        rounding_divergence(graph, trace, changed(trace, fingerprint="x"))


def test_graded_messages_may_be_missing(graph, trace):
    """Torch does not record the relays of the stream."""
    lacking = changed(trace)
    del lacking.spikes["relay"], lacking.spikes["out"]
    assert compare_traces(graph, lacking, trace).same
    assert compare_traces(graph, lacking, trace).compared == 90


# ---- rounding


def near_threshold():
    """One neuron, current = input, threshold 1: a spike by a margin of 2^-20 at step 1."""
    graph = balance_delays(
        SpikeGraph(
            populations={
                "input": Input(name="input", shape=(1,), limit=2.0),
                "a": LIF(name="a", shape=(1,)),
                "b": LIF(name="b", shape=(1,), threshold=np.asarray(0.5)),
                "out": Readout(name="out", shape=(1,)),
            },
            synapses=tuple(
                one_to_one(s, t, 1) for s, t in (("input", "a"), ("a", "b"), ("b", "out"))
            ),
            time_steps=2,
        )
    )
    margin = 2.0**-20
    # u = 0.5; 0.25 + 0.75 + margin = 1 + margin: fires at step 1. Second sample: far away.
    inputs = np.array([[[0.5], [0.75 + margin]], [[0.25], [0.25]], [[1.5], [0.5]]])
    return graph, run_reference(graph, inputs), margin


def test_margin_of_the_first_difference_by_hand():
    graph, trace, margin = near_threshold()
    assert trace.spikes["a"][:, :, 0].tolist() == [[False, True], [False, False], [True, False]]
    rounded = changed(trace, [("a", (0, 1, 0)), ("b", (0, 1, 0))])
    report = rounding_divergence(graph, trace, rounded)
    assert report.images_diverged == 1
    assert report.share == pytest.approx(1 / 3)
    assert report.largest_margin == margin  # dyadic: exact; b's own margin would be 0.5
    both = changed(rounded, [("a", (2, 0, 0))])
    assert rounding_divergence(graph, trace, both).largest_margin == 0.5
    assert rounding_divergence(graph, trace, both).images_diverged == 2


def test_no_difference_no_margin():
    graph, trace, _ = near_threshold()
    report = rounding_divergence(graph, trace, trace)
    assert (report.images_diverged, report.largest_margin, report.share) == (0, None, 0.0)
    assert report.as_dict()["samples"] == 3


def test_membranes_are_those_before_the_reset(graph, inputs, trace):
    membrane = membranes(graph, trace.spikes, "b")
    threshold = graph.populations["b"].threshold
    assert np.array_equal(membrane > threshold, trace.spikes["b"])
    assert membrane[trace.spikes["b"]].min() > 0.5


def test_fingerprint_sees_every_number(graph):
    assert graph.fingerprint == replace(graph, notes={"x": 1}).fingerprint
    synapse = graph.synapses[0]
    weight = synapse.weight.copy()
    weight[0, 0] = np.nextafter(weight[0, 0], 9)
    changed_graph = graph.with_(synapses=[replace(synapse, weight=weight), *graph.synapses[1:]])
    assert changed_graph.fingerprint != graph.fingerprint


def test_logits_that_differ_are_not_the_same_even_where_predictions_agree(graph, trace):
    other = replace(changed(trace), logits=3 * trace.logits + 5)
    comparison = compare_traces(graph, trace, other)
    assert comparison.predictions_differ == 0
    assert comparison.differing == 0
    assert comparison.logits_max_difference > 1
    assert not comparison.same


def test_what_one_trace_lacks_is_named_and_inputs_do_not_count(graph, trace):
    fewer = changed(trace)
    del fewer.spikes["relay"]
    comparison = compare_traces(graph, trace, fewer)
    assert comparison.not_compared == ("relay",)
    assert "input" not in comparison.by_population
    cut = changed(trace)
    cut.spikes["b"] = cut.spikes["b"][:, :1]
    with pytest.raises(BackendError, match=r"has \(5, 1, 2\) for 'b'; needs \(5, 3, 2\)"):
        compare_traces(graph, trace, cut)
