"""Integer score rows instead of graded scores: the same winners, whatever the images."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import settled_model, tiny_config

from hardware.errors import GraphError
from hardware.ir import LIF, Dense, Input, Readout, Relay, SpikeGraph, run_reference
from hardware.ir.nodes import is_graded
from hardware.lowering import lower
from hardware.passes.quantise import quantise
from hardware.passes.scores_to_rows import scores_to_rows, split_weights
from hardware.simulate import simulate

ROUTINGS = [
    {"routing": "top_k", "num_experts": 4, "top_k": 2},
    {"routing": "top_k", "num_experts": 3, "top_k": 1, "route_by": "image"},
    {"routing": "expert_choice"},
]


def binary_images(samples: int) -> np.ndarray:
    """Images of 0 and 1, (samples, 1, 6, 6)."""
    rng = np.random.default_rng(0)
    return (rng.random((samples, 1, 6, 6)) < 0.5).astype(float)


def contest(scores: np.ndarray, fixed: bool) -> SpikeGraph:
    """Two spikes choose between experts by scores (E, 2): ties must go to the lower index."""
    experts = len(scores)
    pairs = [(e, j) for e in range(experts) for j in range(experts) if e != j]
    difference = np.zeros((len(pairs), experts))
    lost = np.zeros((experts, len(pairs)))
    for row, (e, j) in enumerate(pairs):
        difference[row, j], difference[row, e], lost[e, row] = 1, -1, -1
    whole = (lambda v: (2 * np.asarray(v)).astype(int)) if fixed else np.asarray
    tie = np.array([j < e for e, j in pairs])
    number = (lambda v: np.asarray(v, int)) if fixed else (lambda v: np.asarray(v, float))
    populations = [
        Input(name="x", shape=(2,), kind="binary"),
        Relay(name="score", shape=(experts,), role="score"),
        LIF(
            name="compare",
            shape=(len(pairs),),
            membrane_decay=0.0,
            threshold=number(0),
            bias=number(tie) if fixed else np.where(tie, 5e-324, 0.0),
            role="comparator",
        ),
        LIF(
            name="gate",
            shape=(experts,),
            membrane_decay=0.0,
            threshold=number(1) if fixed else number(0.5),
            bias=number(2) if fixed else number(1),
            scale=2.0 if fixed else 1.0,
            role="gate",
        ),
        Readout(name="out", shape=(1,), bias=number(0)),
    ]
    exponent = -1 if fixed else 0
    synapses = (
        Dense(source="x", target="score", weight=whole(scores), exponent=exponent),
        Dense(source="score", target="compare", weight=whole(difference), exponent=exponent),
        Dense(source="compare", target="gate", weight=whole(lost)),
        Dense(source="gate", target="out", weight=whole(np.ones((1, experts)))),
    )
    return SpikeGraph(
        populations={p.name: p for p in populations},
        synapses=synapses,
        time_steps=1,
        arithmetic="fixed" if fixed else "float",
    )


@pytest.mark.parametrize("fixed", [True, False], ids=["fixed", "float"])
def test_worked_winners_with_ties(fixed: bool) -> None:
    # One spike each: scores (3, 3, 1), (-2, 5, 5); both: (1, 8, 6); none: all 0.
    graph = contest(np.array([[3, -2], [3, 5], [1, 5]]), fixed)
    inputs = np.array([[1, 0], [0, 1], [1, 1], [0, 0]], float)[:, None]
    rows = scores_to_rows(graph)
    assert [n for n, p in rows.populations.items() if is_graded(p)] == []
    for one in (graph, rows):
        winners = run_reference(one, inputs).spikes["gate"][:, 0]
        assert winners.sum(axis=1).tolist() == [1, 1, 1, 1]
        assert winners.argmax(axis=1).tolist() == [0, 1, 1, 0]


@pytest.mark.parametrize("routing", ROUTINGS, ids=lambda r: f"{r['routing']}-{r.get('route_by')}")
def test_a_model_has_the_same_winners(routing: dict) -> None:
    model = settled_model(tiny_config(**routing))
    floating = lower(model, residual="unrolled", input="binary")
    relayed = quantise(floating)
    rows = scores_to_rows(relayed)
    assert any(is_graded(p) for p in relayed.populations.values())
    assert not any(is_graded(p) for p in rows.populations.values())
    images = binary_images(24)
    for with_relays, without in ((relayed, rows), (floating, scores_to_rows(floating))):
        expected, got = simulate(with_relays, images), simulate(without, images)
        gates = [n for n, p in rows.populations.items() if p.role == "gate"]
        assert gates
        assert all(0 < expected.firing_rate(n) < 1 for n in gates)
        for name, spikes in got.spikes.items():
            if spikes.dtype == bool:
                assert np.array_equal(spikes, expected.spikes[name]), name


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(-100_000, 100_000), max_size=20))
def test_split_weights_add_up(weights: list[int]) -> None:
    values = np.array(weights, dtype=np.int64)
    parts = split_weights(values)
    total = sum((m.astype(np.int64) * 2.0**e for m, e in parts), np.zeros(len(values)))
    assert np.array_equal(total, values)
    for mantissa, exponent in parts:
        assert -1 <= exponent <= 7
        assert np.abs(mantissa).max() <= 254
        assert not (mantissa % 2).any()


@pytest.mark.parametrize(
    ("weights", "expected"),
    [
        ([0, 0], []),
        ([3, -127], [([6, -254], -1)]),
        ([508, 4], [([254, 2], 1)]),  # all multiples of 4: one synapse holds them
        ([256 * 127, 256], [([254, 2], 7)]),
        ([1000, 1], [([250, 0], 2), ([0, 2], -1)]),
    ],
)
def test_split_weights_worked(weights: list[int], expected: list) -> None:
    assert [(m.tolist(), e) for m, e in split_weights(np.array(weights))] == expected


def test_a_graph_without_scores_stays() -> None:
    graph = quantise(lower(settled_model(tiny_config(routing="threshold"))))
    assert scores_to_rows(graph) is graph


def test_rows_are_not_quantised() -> None:
    rows = scores_to_rows(lower(settled_model(tiny_config())))
    with pytest.raises(GraphError, match=r"compare' compares rows of scores that are not integers"):
        quantise(rows)


def test_floored_scores_are_refused() -> None:
    graph = contest(np.array([[3, -2], [3, 5], [1, 5]]), fixed=True)
    floored = [
        Dense(source="x", target="score", weight=s.weight, exponent=-2)
        if s.target == "score"
        else s
        for s in graph.synapses
    ]
    with pytest.raises(GraphError, match=r"'x' -> 'score': with exponent -2 its sums are floored"):
        scores_to_rows(graph.with_(synapses=floored))
