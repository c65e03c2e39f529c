"""SANA-FE, a chip simulator by others: the same spikes as our fixed point, and the energy that we count.

Costs per event are those of its Loihi 1 (Boyle et al. 2025, fitted on silicon), in pJ.
"""

from __future__ import annotations

import importlib.util
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from graphs import assert_same
from tiny_models import settled_model, tiny_config

from hardware.errors import BackendError, GraphError
from hardware.ir import LIF, Conv2d, Dense, Input, Readout, Sparse, SpikeGraph, run_reference
from hardware.ir.nodes import size
from hardware.ir.stream import run_stream, stream_messages
from hardware.lowering import lower
from hardware.passes.balance_delays import balance_delays
from hardware.passes.quantise import quantise
from hardware.passes.register_delays import register_delays
from hardware.passes.scores_to_rows import scores_to_rows
from hardware.sanafe.counts import ChipEvents, count_events
from hardware.sanafe.legal import legalise
from hardware.sanafe.placement import Placement, place_neurons
from hardware.sanafe.run import Limits, run_sanafe
from hardware.simulate import simulate
from hardware.trace import SpikeTrace

SYNAPSE_PJ = {"dense": 35.5, "sparse": 33.6, "convolution": 24.0}
UPDATE_PJ, CHANGE_PJ, SPIKE_PJ = 51.2, 21.6, 69.3
MESSAGE_PJ, EAST_WEST_PJ, NORTH_SOUTH_PJ = 111.0, 3.0, 4.2
LONG = 1  # a seed whose graph has delays beyond 6
EXACT = 1e-9  # relative: both sides sum the same terms in another order

installed = pytest.mark.skipif(
    importlib.util.find_spec("sanafe") is None,
    reason="needs the package sanafe (`pip install sanafe`)",
)


def random_graph(seed: int) -> SpikeGraph:
    """Binary spikes, integers; skips with delays of up to 10 steps, loops, a clock, a constant, all kinds."""
    rng = np.random.default_rng(seed)
    steps = int(rng.integers(1, 6))
    populations: list = [Input(name="data", shape=(4, 4, 2), kind="binary")]
    has_loops = bool(
        rng.random() < 0.5
    )  # they start empty in the reference: nothing may fire early
    if not has_loops and rng.random() < 0.7:
        populations.append(Input(name="one", shape=(2,), kind="constant"))
    populations.append(
        Input(name="clock", shape=(3,), kind="clock", clock_step=int(rng.integers(steps)))
    )
    synapses: list = []
    before = populations[0]
    for index in range(int(rng.integers(3, 12))):
        name = f"p{index}"
        weight_shape = (2, 2, 3, 3)
        if index < 2:
            synapses.append(
                Conv2d(
                    source=before.name,
                    target=name,
                    weight=2 * rng.integers(-20, 21, weight_shape),
                    padding=(1, 1),
                    exponent=int(rng.integers(-1, 3)),
                )
            )
        shape = (4, 4, 2) if index < 2 else (int(rng.integers(2, 9)),)
        wide = shape if rng.random() < 0.5 else ()
        neuron = LIF(
            name=name,
            shape=shape,
            membrane_decay=float(rng.choice([0, 0.5, 3001 / 4096, 1.0, 1 / 4096, 4095 / 4096])),
            threshold=rng.integers(0, 60, wide),
            bias=rng.integers(-20, 1 if has_loops else 21, wide),
        )
        if index >= 2:
            synapses.append(_connect(rng, before, neuron))
        other = populations[int(rng.integers(len(populations)))]
        synapses.append(_connect(rng, other, neuron))
        if has_loops and rng.random() < 0.3:
            synapses.append(_connect(rng, neuron, neuron))
        populations.append(neuron)
        before = neuron
    out = Readout(name="out", shape=(3,), bias=rng.integers(-9, 9, 3), scale=2.0)
    synapses += [_connect(rng, before, out), _connect(rng, populations[0], out)]
    return balance_delays(
        SpikeGraph(
            populations={p.name: p for p in [*populations, out]},
            synapses=tuple(synapses),
            time_steps=steps,
            arithmetic="fixed",
        )
    )


def _connect(rng: np.random.Generator, source, target):
    n_in, n_out = size(source), size(target)
    exponent = int(rng.integers(-1, 3))
    if rng.random() < 0.5:
        weight = 2 * rng.integers(-20, 21, (n_out, n_in)) * (rng.random((n_out, n_in)) < 0.7)
        return Dense(source=source.name, target=target.name, weight=weight, exponent=exponent)
    pairs = rng.choice(n_in * n_out, min(n_in * n_out, 12), replace=False)
    return Sparse(
        source=source.name,
        target=target.name,
        rows=pairs // n_in,
        columns=pairs % n_in,
        weight=2 * rng.integers(-20, 21, len(pairs)),
        exponent=exponent,
    )


def random_samples(graph: SpikeGraph, seed: int, samples: int = 4) -> np.ndarray:
    rng = np.random.default_rng(seed + 1000)
    shape = graph.data_input.shape  # images (S, T, C, H, W)
    return (rng.random((samples, graph.time_steps, shape[2], *shape[:2])) < 0.4).astype(float)


def events_of(graph: SpikeGraph, images: np.ndarray) -> ChipEvents:
    """Counted from our own spikes."""
    legal = legalise(graph)
    return count_events(
        legal, place_neurons(legal), stream_messages(legal, np.moveaxis(images, 2, -1))
    )


def assert_same_energy(events: ChipEvents, trace: SpikeTrace) -> None:
    """By part of the chip, and hops."""
    energy = trace.meta["energy_pj"]
    assert isinstance(energy, dict)
    synapse = sum(SYNAPSE_PJ[kind] * count for kind, count in events.synapses_reached.items())
    soma = UPDATE_PJ * events.soma_updates + CHANGE_PJ * events.soma_changes
    soma += SPIKE_PJ * events.soma_spikes
    network = MESSAGE_PJ * events.messages + EAST_WEST_PJ * events.hops_east_west
    network += NORTH_SOUTH_PJ * events.hops_north_south
    assert trace.meta["messages"] == events.messages
    assert trace.meta["hops"] == events.hops
    assert energy["synapse"] == pytest.approx(synapse, rel=EXACT)
    assert energy["soma"] == pytest.approx(soma, rel=EXACT)
    assert energy["network"] == pytest.approx(network, rel=EXACT)
    assert energy["dendrite"] == 0
    assert energy["total"] == pytest.approx(synapse + soma + network, rel=EXACT)


@installed
@pytest.mark.parametrize("seed", range(4))
def test_random_graphs_spike_and_cost_the_same(seed: int) -> None:
    graph = random_graph(seed)
    images = random_samples(graph, seed)
    got = simulate(graph, images, backend="sanafe")
    assert_same(run_reference(graph, np.moveaxis(images, 2, -1)), got)
    assert_same_energy(events_of(graph, images), got)


@installed
def test_a_binary_mixture_of_experts_spikes_and_costs_the_same() -> None:
    """Stem, attention, prompt, top-k of score rows, experts, head: delays beyond 6 in registers."""
    model = settled_model(tiny_config(depth=2))
    graph = scores_to_rows(quantise(lower(model, residual="unrolled", input="binary")))
    assert max(s.delay for s in graph.synapses) > 6
    images = (np.random.default_rng(3).random((3, 1, 6, 6)) < 0.5).astype(float)
    expected = simulate(graph, images)
    fires = [n for n, p in graph.populations.items() if isinstance(p, LIF)]
    assert sum(expected.firing_rate(n) > 0 for n in fires) > len(fires) // 2
    got = simulate(graph, images, backend="sanafe")
    assert_same(expected, got)
    assert_same_energy(events_of(graph, images[:, None]), got)


def chain(**neuron: object) -> SpikeGraph:
    """Two spikes -> one neuron -> readout."""
    lif = LIF(name="a", shape=(1,), **{"threshold": np.asarray(9), "bias": np.asarray(0), **neuron})
    populations = [
        Input(name="x", shape=(2,), kind="binary"),
        lif,
        Readout(name="out", shape=(1,), bias=np.asarray(0)),
    ]
    return SpikeGraph(
        populations={p.name: p for p in populations},
        synapses=(
            Dense(source="x", target="a", weight=np.array([[10, 4]])),
            Dense(source="a", target="out", weight=np.array([[2]])),
        ),
        time_steps=2,
        arithmetic="fixed",
    )


def test_events_worked_by_hand() -> None:
    """x sends (1, 0), (0, 1); a gets 10 and fires, then 4. Four hardware steps, x and the rest on two cores."""
    graph = chain()
    sent = stream_messages(graph, np.array([[[1, 0], [0, 1]]]))
    placement = Placement(
        # Core 0 is router (0, 0), core 25 router (1, 2): a hop to the east, two to the north.
        {"x": np.array([0, 0]), "a": np.array([25]), "out": np.array([25])},
        {"x": "dense", "a": "sparse", "out": "dense"},
    )
    assert count_events(graph, placement, sent) == ChipEvents(
        synapses_reached={"dense": 1, "sparse": 2, "convolution": 0},
        soma_updates=2 * 4,
        # a: the messages of steps 1 and 2; v = 4 is gone at step 3, where a window begins.
        # out: the spike's message at step 2, its value at step 3.
        soma_changes=2 + 2,
        late_clears=1,  # of out, at step 3
        soma_spikes=1,
        messages=2 + 1,
        hops_east_west=2,
        hops_north_south=4,
    )


def test_a_core_receives_one_kind_of_synapse() -> None:
    legal = legalise(random_graph(1))
    placement = place_neurons(legal)
    kinds: dict[int, set[str]] = {}
    for name, cores in placement.cores.items():
        if legal.incoming(name):
            for core in set(cores.tolist()):
                kinds.setdefault(core, set()).add(placement.kinds[name])
    assert len(set().union(*kinds.values())) > 1
    assert all(len(found) == 1 for found in kinds.values())


@pytest.mark.parametrize("longest", [1, 2, 6])
def test_registers_bridge_what_exceeds_the_longest_delay(longest: int) -> None:
    graph, seen = random_graph(LONG), 0
    images = random_samples(graph, LONG)
    expected = run_reference(graph, np.moveaxis(images, 2, -1))
    short = register_delays(graph, longest=longest)
    delays = [
        s.delay
        for s in short.synapses
        if not (isinstance(p := short.populations[s.source], Input) and p.kind == "constant")
    ]
    assert max(delays) == longest < max(s.delay for s in graph.synapses)
    got = simulate_stream(short, images)
    for name, spikes in expected.spikes.items():
        assert np.array_equal(spikes, got.spikes[name]), name
        seen += int(spikes.sum())
    assert seen > 0


def simulate_stream(graph: SpikeGraph, images: np.ndarray) -> SpikeTrace:
    """Delays that are not balanced, literally."""
    return run_stream(graph, np.moveaxis(images, 2, -1))


SAMPLES = np.array([[[1, 0], [0, 1]]], dtype=float)


def refused(graph: SpikeGraph, words: str) -> None:
    with pytest.raises(BackendError, match=words):
        simulate(graph, np.ones((1, *graph.data_input.shape)), backend="sanafe")


def test_graded_spikes_are_refused_by_name() -> None:
    image = np.ones((1, 1, 6, 6))
    model = settled_model(tiny_config())
    for form, words in (
        ({}, r"'input' sends numbers, .* binary spikes only; .*--input binary"),
        ({"input": "binary"}, r"'stream\.0' sends numbers, .*--residual unrolled"),
        (
            {"input": "binary", "residual": "unrolled"},
            r"moe\.score' sends numbers, .*--scores rows",
        ),
    ):
        with pytest.raises(BackendError, match=words):
            simulate(lower(model, **form), image, backend="sanafe", arithmetic="fixed")


def test_floats_and_floors_are_refused() -> None:
    floating = lower(settled_model(tiny_config()))
    with pytest.raises(BackendError, match="computes with integers; use arithmetic='fixed'"):
        simulate(floating, np.ones((1, 1, 6, 6)), backend="sanafe")
    graph = chain()
    first, second = graph.synapses
    refused(
        graph.with_(synapses=[replace(first, exponent=-2), second]),
        "'x' -> 'a': with exponent -2 its sums are floored",
    )


def test_long_loops_are_refused() -> None:
    graph = chain()
    loop = Dense(source="a", target="a", weight=np.array([[2]]), delay=7)
    with pytest.raises(GraphError, match=r"'a' has a loop with delay 7.* delay 1 to 6"):
        legalise(graph.with_(synapses=[*graph.synapses, loop]))


def test_too_many_cores_are_refused() -> None:
    graph = chain()
    wide = Input(name="x", shape=(1024 * 129,), kind="binary")
    weight = np.zeros((1, 1024 * 129), dtype=int)
    synapses = [replace(graph.synapses[0], weight=weight), graph.synapses[1]]
    populations = [wide, graph.populations["a"], graph.populations["out"]]
    with pytest.raises(BackendError, match="cores of SANA-FE's Loihi 1, which has 128"):
        place_neurons(graph.with_(populations=populations, synapses=synapses))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hardware.sanafe.run.importlib.util.find_spec", lambda name: None)
    refused(chain(), "needs the package sanafe, which is not installed; run `pip install sanafe`")


@installed
def test_limits_end_a_run_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(BackendError, match=r"exceeded its time limit of 0\.05 s at step \d"):
        run_sanafe(chain(), SAMPLES, limits=Limits(seconds=0.05))
    with pytest.raises(BackendError, match=r"SANA-FE (failed|died)"):
        run_sanafe(chain(), SAMPLES, limits=Limits(memory_bytes=150 << 20))
    assert list(tmp_path.iterdir()) == []


@installed
def test_what_24_bits_would_have_stopped_is_an_error() -> None:
    """-131,071 twice without leak: Loihi's v stops at -2^23 + 1, SANA-FE's goes on."""
    graph = chain(membrane_decay=1.0, bias=np.asarray(-4095))
    first = Dense(source="x", target="a", weight=np.array([[-254, -254]]), exponent=7)
    graph = replace(graph.with_(synapses=[first, graph.synapses[1]]), time_steps=4)
    with pytest.raises(BackendError, match="'a': a membrane falls below -131,072 at hardware step"):
        run_sanafe(graph, np.ones((1, 4, 2)))


@installed
def test_only_what_is_asked_for_is_recorded() -> None:
    trace = simulate(chain(), SAMPLES, backend="sanafe", record=["a"])
    assert list(trace.spikes) == ["a"]
    assert trace.spikes["a"].ravel().tolist() == [True, False]
    assert trace.logits.tolist() == [[1.0]]
