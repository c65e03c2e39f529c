"""SANA-FE, a chip simulator by others: the same spikes as our fixed point, and the energy that we count.

Costs per event are those of its Loihi 1 (Boyle et al. 2025, fitted on silicon), in pJ.
"""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from graphs import assert_same

from hardware.ir import LIF, Conv2d, Dense, Input, Readout, Sparse, SpikeGraph, run_reference
from hardware.ir.nodes import size
from hardware.ir.stream import stream_messages
from hardware.passes.balance_delays import balance_delays
from hardware.sanafe.counts import ChipEvents, count_events
from hardware.sanafe.legal import legalise
from hardware.sanafe.placement import place_neurons
from hardware.simulate import simulate
from hardware.trace import SpikeTrace

SYNAPSE_PJ = {"dense": 35.5, "sparse": 33.6, "convolution": 24.0}
UPDATE_PJ, CHANGE_PJ, SPIKE_PJ = 51.2, 21.6, 69.3
MESSAGE_PJ, EAST_WEST_PJ, NORTH_SOUTH_PJ = 111.0, 3.0, 4.2
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
