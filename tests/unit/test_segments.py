"""Cutting a graph into segments: everything once, forward only, balanced, connected."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from graphs import Case, cases
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hardware.errors import BackendError
from hardware.ir import LIF, Dense, Input, Readout, SpikeGraph
from hardware.lava.segments import cut_into_segments, work_of
from hardware.passes.balance_delays import balance_delays


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(case=cases(most=9), count=st.integers(1, 6))
def test_every_population_once_and_messages_go_forward(case: Case, count: int) -> None:
    graph = case.graph
    segments = cut_into_segments(graph, count)
    computed = [n for n, p in graph.populations.items() if not isinstance(p, Input)]
    assert sorted(n for s in segments for n in s.names) == sorted(computed)
    assert 1 <= len(segments) <= count
    place = {name: index for index, s in enumerate(segments) for name in s.names}
    for index, segment in enumerate(segments):
        assert all(place[name] < index for name in segment.sources)
        later = {n for s in segments[index + 1 :] for n in s.sources}
        assert set(segment.sends) == later & set(segment.names)
        assert all(isinstance(graph.populations[n], Input) for n in segment.inputs)


def chain() -> SpikeGraph:
    """Four equal layers and a small readout."""
    names = ["x", "a", "b", "c", "d"]
    layers = [LIF(name=n, shape=(50,)) for n in names[1:]]
    weight = np.ones((50, 50))
    synapses = [Dense(source=s, target=t, weight=weight) for s, t in pairwise(names)]
    synapses.append(Dense(source="d", target="out", weight=np.ones((2, 50))))
    populations = [Input(name="x", shape=(50,)), *layers, Readout(name="out", shape=(2,))]
    graph = SpikeGraph(
        populations={p.name: p for p in populations}, synapses=tuple(synapses), time_steps=2
    )
    return balance_delays(graph)


def test_equal_layers_are_shared_out_equally() -> None:
    graph = chain()
    segments = cut_into_segments(graph, 2)
    assert [s.names for s in segments] == [("a", "b"), ("c", "d", "out")]
    assert [s.sends for s in segments] == [("b",), ()]
    assert segments[1].sources == ("b",)
    assert segments[0].inputs == ("x",)
    assert segments[0].title == "a to b"
    assert work_of(graph, "a") == work_of(graph, "d")


def test_of_cuts_that_balance_alike_the_one_with_fewest_messages() -> None:
    """Behind the narrow sixth of ten layers 1 message crosses the cut instead of 50."""
    sizes = {f"layer{i}": 1 if i == 6 else 50 for i in range(1, 11)}
    layers = [LIF(name=name, shape=(n,)) for name, n in sizes.items()]
    populations = [Input(name="x", shape=(50,)), *layers, Readout(name="out", shape=(2,))]
    graph = SpikeGraph(
        populations={p.name: p for p in populations},
        synapses=tuple(
            Dense(source=s.name, target=t.name, weight=np.ones((*t.shape, *s.shape)))
            for s, t in pairwise(populations)
        ),
        time_steps=1,
    )
    assert cut_into_segments(balance_delays(graph), 2)[1].sources == ("layer6",)


def test_segments_that_would_not_hang_together_become_one() -> None:
    """Lava runs what connections reach: a part that hears the input alone would be lost."""
    populations = [
        Input(name="x", shape=(9,)),
        LIF(name="a", shape=(9,)),
        Readout(name="out", shape=(9,)),
    ]
    graph = SpikeGraph(
        populations={p.name: p for p in populations},
        synapses=tuple(Dense(source="x", target=t, weight=np.ones((9, 9))) for t in ("a", "out")),
        time_steps=1,
    )
    assert [s.names for s in cut_into_segments(graph, 2)] == [("a", "out")]


@pytest.mark.parametrize("count", [0, -1, 1.5, True])
def test_a_wrong_number_is_refused(count: object) -> None:
    with pytest.raises(BackendError, match=r"segments=.* must be a positive whole number, or None"):
        cut_into_segments(chain(), count)  # type: ignore[arg-type]
