"""Gates as populations: AND, OR, exact top-k and the window latch, for every combination of inputs."""

import itertools

import numpy as np
import pytest

from hardware.ir import LIF, Dense, Input, Readout, Relay, SpikeGraph, one_to_one, run_reference
from hardware.ir.stream import run_stream
from hardware.passes.balance_delays import balance_delays
from hardware.passes.quantise import quantise
from hardware.passes.register_delays import register_delays

TIE = float(np.nextafter(0.0, 1.0))


def dense(source, target, rows):
    return Dense(source=source, target=target, weight=np.array(rows, dtype=float))


def logic(name, n, role, threshold, bias=0.0):
    return LIF(
        name=name,
        shape=(n,),
        membrane_decay=0.0,
        threshold=np.asarray(threshold),
        bias=np.asarray(bias, dtype=float),
        role=role,
    )


def build(populations, synapses, time_steps, heard):
    """A balanced graph whose readout hears the population `heard`."""
    n = next(p.shape[0] for p in populations if p.name == heard)
    readout = Readout(name="out", shape=(n,))
    return balance_delays(
        SpikeGraph(
            populations={p.name: p for p in [*populations, readout]},
            synapses=(*synapses, one_to_one(heard, "out", n)),
            time_steps=time_steps,
        )
    )


def in_every_way(graph, inputs, name):
    """What `name` sends in float and fixed, on the reference and streamed, with and without delays."""
    results = {}
    for form in (graph, quantise(graph)):
        legal = register_delays(form)
        for how, run, program in (
            ("reference", run_reference, form),
            ("stream", run_stream, form),
            ("registers", run_stream, legal),
        ):
            results[f"{form.arithmetic} {how}"] = run(program, inputs).spikes[name]
    return results


def assert_all(graph, inputs, name, expected):
    for way, spikes in in_every_way(graph, inputs, name).items():
        assert spikes.astype(int).tolist() == np.asarray(expected).astype(int).tolist(), way


def pairs():
    return np.array(list(itertools.product([0.0, 1.0], repeat=2)))


@pytest.mark.parametrize(
    ("role", "threshold", "truth"), [("and", 1.5, [0, 0, 0, 1]), ("or", 0.5, [0, 1, 1, 1])]
)
def test_and_or(role, threshold, truth):
    """Every pair of inputs after every other pair: nothing is remembered."""
    graph = build(
        [Input(name="data", shape=(2,), kind="binary"), logic("gate", 1, role, threshold)],
        [dense("data", "gate", [[1, 1]])],
        2,
        "gate",
    )
    inputs = np.stack([np.stack(two) for two in itertools.product(pairs(), repeat=2)])
    table = {tuple(p): t for p, t in zip(pairs().tolist(), truth, strict=True)}
    expected = [[[table[tuple(step)]] for step in sample] for sample in inputs.tolist()]
    assert_all(graph, inputs, "gate", expected)


def test_and_of_inputs_at_different_depths():
    """One input arrives three populations later: the delay lines them up again."""
    graph = build(
        [
            Input(name="data", shape=(2,), kind="binary"),
            logic("a", 1, "or", 0.5),
            logic("b", 1, "or", 0.5),
            logic("both", 1, "and", 1.5),
        ],
        [
            dense("data", "a", [[1, 0]]),
            dense("a", "b", [[1]]),
            dense("b", "both", [[1]]),
            dense("data", "both", [[0, 1]]),
        ],
        4,
        "both",
    )
    assert max(s.delay for s in graph.synapses) == 3
    inputs = np.random.default_rng(0).integers(0, 2, (30, 4, 2)).astype(float)
    expected = inputs.prod(axis=-1, keepdims=True)
    assert 0.1 < expected.mean() < 0.4
    assert_all(graph, inputs, "both", expected)


def top_k_graph(experts, k, time_steps=1):
    """Scores -> a comparator per ordered pair -> a gate that counts lost comparisons."""
    order = [(e, j) for e in range(experts) for j in range(experts) if j != e]
    difference, lost = np.zeros((len(order), experts)), np.zeros((experts, len(order)))
    for row, (e, j) in enumerate(order):
        difference[row, [j, e]] = 1.0, -1.0
        lost[e, row] = -1.0
    compare = LIF(
        name="compare",
        shape=(len(order),),
        membrane_decay=0.0,
        threshold=np.asarray(0.0),
        bias=np.array([TIE if j < e else 0.0 for e, j in order]),
        role="comparator",
    )
    return build(
        [
            Input(name="data", shape=(experts,), bits=8, limit=1.0),
            Relay(name="score", shape=(experts,), role="score"),
            compare,
            logic("gate", experts, "gate", 0.5, bias=k),
        ],
        [
            dense("data", "score", np.eye(experts)),
            dense("score", "compare", difference),
            dense("compare", "gate", lost),
        ],
        time_steps,
        "gate",
    )


def by_hand(scores, k):
    ranked = sorted(range(len(scores)), key=lambda e: (-scores[e], e))
    return [int(e in ranked[:k]) for e in range(len(scores))]


@pytest.mark.parametrize(("experts", "k"), [(2, 1), (3, 1), (3, 2), (4, 1), (4, 2), (4, 3)])
def test_top_k_with_every_pattern_of_ties(experts, k):
    """All score vectors over as many levels as experts: every order and every tie."""
    levels = np.arange(experts) / 127 - 0.5 / 127 * experts
    inputs = np.array(list(itertools.product(np.rint(levels * 127) / 127, repeat=experts)))
    graph = top_k_graph(experts, k)
    expected = [[by_hand(row, k)] for row in inputs.tolist()]
    assert_all(graph, inputs[:, None], "gate", expected)


def test_top_k_tells_the_smallest_differences_apart():
    """Neighbouring doubles in float, neighbouring integers in fixed point."""
    graph = top_k_graph(2, 1)
    up = np.nextafter(0.3, 1.0)
    scores = np.array([[0.3, up], [up, 0.3], [0.3, 0.3], [0.0, 5e-324], [1e-300, 2e-300]])
    spikes = run_reference(graph, scores[:, None]).spikes["gate"][:, 0]
    assert spikes.astype(int).tolist() == [[0, 1], [1, 0], [1, 0], [0, 1], [0, 1]]
    steps = np.array([[i / 127, (i + 1) / 127] for i in range(-127, 127)])
    spikes = run_reference(quantise(graph), steps[:, None]).spikes["gate"][:, 0]
    assert (spikes == [False, True]).all()


def test_equal_integers_are_equal_scores():
    """Scores that are different reals but the same integer tie exactly: the lower index wins."""
    graph = quantise(top_k_graph(3, 1))
    spikes = run_reference(graph, np.array([[[0.3, 0.3001, 0.3002]]])).spikes["gate"]
    assert spikes[0, 0].tolist() == [True, False, False]


def test_top_k_counts_every_step_of_a_stream_anew():
    graph = top_k_graph(3, 1, time_steps=4)
    inputs = np.rint(np.random.default_rng(1).uniform(-1, 1, (10, 4, 3)) * 127) / 127
    expected = [[by_hand(step, 1) for step in sample] for sample in inputs.tolist()]
    assert_all(graph, inputs, "gate", expected)


def latch_graph(time_steps, step):
    clocks = [Input(name=f"clock.{s}", shape=(1,), kind="clock", clock_step=s) for s in {0, step}]
    return build(
        [
            Input(name="data", shape=(1,), kind="binary"),
            *clocks,
            logic("gate", 1, "or", 0.5),
            logic("decided", 1, "and", 1.5),
            logic("latch", 1, "latch", 0.5),
        ],
        [
            dense("data", "gate", [[1]]),
            dense("gate", "decided", [[1]]),
            dense(f"clock.{step}", "decided", [[1]]),
            dense("decided", "latch", [[2]]),
            dense("latch", "latch", [[1]]),
            dense("clock.0", "latch", [[-1]]),
        ],
        time_steps,
        "latch",
    )


@pytest.mark.parametrize(("time_steps", "step"), [(t, s) for t in (1, 2, 3, 4) for s in range(t)])
def test_latch_for_every_input_after_every_input(time_steps, step):
    """All windows follow each other, so that a latch left open would be seen in the next sample."""
    windows = np.array(list(itertools.product([0.0, 1.0], repeat=time_steps)))[..., None]
    rng = np.random.default_rng(time_steps * 10 + step)
    order = np.concatenate([rng.permutation(len(windows)) for _ in range(4)])
    inputs = windows[order]
    expected = np.zeros_like(inputs)
    expected[:, step:] = inputs[:, step : step + 1]
    assert_all(latch_graph(time_steps, step), inputs, "latch", expected)


def test_without_the_clock_the_latch_would_leak():
    """Why the clock is there: the spike in flight in the loop survives the reset of the window."""
    graph = latch_graph(3, 1)
    broken = graph.with_(
        synapses=[s for s in graph.synapses if (s.source, s.target) != ("clock.0", "latch")]
    )
    inputs = np.array([[1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])[..., None]
    assert not run_reference(graph, inputs).spikes["latch"][1].any()
    assert run_reference(broken, inputs).spikes["latch"][1].any()
