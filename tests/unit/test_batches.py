"""Samples batch by batch give what all at once give: traces, comparisons, counts, margins."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from graphs import Case, assert_same
from hypothesis import given
from hypothesis import strategies as st
from random_graphs import examples, wide_cases
from tiny_models import settled_model, tiny_config, tiny_images

from hardware.energy import OperationCounter, count_operations
from hardware.errors import BackendError, HardwareError
from hardware.ir import LIF, SpikeGraph, run_reference
from hardware.ir.reference import run_batches
from hardware.lowering import compare_with_torch, lower, record_torch
from hardware.simulate import simulate, simulate_batches
from hardware.trace import SpikeTrace
from hardware.verify import (
    compare_traces,
    join_comparisons,
    join_roundings,
    rounding_divergence,
)


def cut(trace: SpikeTrace, start: int, end: int) -> SpikeTrace:
    spikes = {name: values[start:end] for name, values in trace.spikes.items()}
    return SpikeTrace(spikes=spikes, logits=trace.logits[start:end], meta=trace.meta)


def damaged(graph: SpikeGraph, trace: SpikeTrace, rng: np.random.Generator) -> SpikeTrace:
    """A copy in which some messages of some populations are others."""
    spikes = {name: values.copy() for name, values in trace.spikes.items()}
    for name, values in spikes.items():
        if rng.random() < 0.6:
            hit = rng.random(values.shape) < rng.choice([0.002, 0.02, 0.2])
            spikes[name] = values ^ hit if values.dtype == bool else values + hit
    logits = trace.logits + (rng.random(trace.logits.shape) < 0.2)
    return SpikeTrace(spikes=spikes, logits=logits, meta={**trace.meta, "backend": "other"})


@examples(60)
@given(case=wide_cases(), data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_parts_add_up_to_the_whole(case: Case, data: st.DataObject, seed: int) -> None:
    graph = case.graph
    inputs = np.concatenate([case.inputs] * 3)
    whole = run_reference(graph, inputs)
    cuts = sorted({0, len(inputs), *data.draw(st.lists(st.integers(1, len(inputs)), max_size=3))})
    spans = list(pairwise(cuts))
    parts = list(run_batches(graph, [inputs[a:b] for a, b in spans]))
    for (a, b), part in zip(spans, parts, strict=True):
        assert_same(cut(whole, a, b), part)  # what loops have in flight goes on

    other = damaged(graph, whole, np.random.default_rng(seed))
    compared = [compare_traces(graph, p, cut(other, *s)) for p, s in zip(parts, spans, strict=True)]
    assert join_comparisons(graph, compared) == compare_traces(graph, whole, other)

    counter = OperationCounter(graph)
    for part in parts:
        counter.add(part)
    assert counter.counts == count_operations(graph, whole)

    if not any(s.source == s.target for s in graph.synapses) and graph.of_kind(LIF):
        reports = [
            rounding_divergence(graph, p, cut(other, *s)) for p, s in zip(parts, spans, strict=True)
        ]
        assert join_roundings(reports) == rounding_divergence(graph, whole, other)


def test_torch_is_compared_batch_by_batch() -> None:
    config = tiny_config(hold="window", num_experts=4, top_k=2)
    model, images = settled_model(config), tiny_images(config, 11)
    graph = lower(model)
    seen: list[SpikeTrace] = []
    done: list[tuple[int, int]] = []
    agreement = compare_with_torch(
        model,
        graph,
        images,
        batch=4,
        watch=seen.append,
        progress=lambda at, of: done.append((at, of)),
    )
    torch64, reference = record_torch(model, images), simulate(graph, images)
    whole, found = compare_traces(graph, torch64, reference), agreement.comparison
    assert found.same
    assert found.by_population == whole.by_population
    assert found.compared == whole.compared > 0
    assert found.samples == agreement.rounding.samples == 11
    # products of other batches round otherwise
    assert np.allclose(agreement.torch_logits, torch64.logits, rtol=0, atol=1e-12)
    assert [trace.samples for trace in seen] == [4, 4, 3]
    assert done == [(4, 11), (8, 11), (11, 11)]
    for at, trace in enumerate(seen):
        for name in whole.by_population:
            assert np.array_equal(reference.spikes[name][4 * at : 4 * at + 4], trace.spikes[name])


def test_a_graph_of_another_model_is_refused() -> None:
    config = tiny_config()
    graph = lower(settled_model(config, seed=1))
    with pytest.raises(BackendError, match="belongs to another graph"):
        compare_with_torch(settled_model(config), graph, tiny_images(config, 9), batch=2)


def test_batches_hold_one_at_a_time() -> None:
    config = tiny_config()
    graph = lower(settled_model(config))
    images = tiny_images(config, 10)
    traces = simulate_batches(graph, images, size=3, arithmetic="fixed")
    assert [trace.samples for trace in traces] == [3, 3, 3, 1]
    whole = simulate(graph, images, arithmetic="fixed")
    parts = simulate_batches(graph, images, size=4, arithmetic="fixed")
    assert np.array_equal(whole.logits, np.concatenate([p.logits for p in parts]))


def test_nothing_adds_up_to_nothing() -> None:
    graph = lower(settled_model(tiny_config()))
    with pytest.raises(BackendError, match="nothing was compared; give at least one batch"):
        join_comparisons(graph, [])
    with pytest.raises(HardwareError, match="no samples were counted; add a trace"):
        _ = OperationCounter(graph).counts
    trace = simulate(graph, tiny_images(tiny_config(), 2))
    one = compare_traces(graph, trace, trace)
    other = compare_traces(
        graph,
        trace,
        SpikeTrace(spikes=trace.spikes, logits=trace.logits, meta={**trace.meta, "backend": "x"}),
    )
    with pytest.raises(BackendError, match="different backends or populations cannot be added"):
        join_comparisons(graph, [one, other])
