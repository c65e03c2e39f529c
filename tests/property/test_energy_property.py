"""Energy on random small graphs: against loops over single connections, and its laws."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_graphs import examples, wide_cases

from hardware.energy import COST_TABLES, Operation, count_operations, estimate, price
from hardware.energy.operations import UNPLACED
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
from hardware.ir.nodes import size
from hardware.loihi.blocks import Grid
from hardware.loihi.layout import CoreLayout
from hardware.passes.balance_delays import balance_delays

SHAPE = (2, 3, 2)
N = 12
ROUTER = "blocks.0.moe"
NAMES = ("stem.lif0", "stream.0", "blocks.0.attention.q", f"{ROUTER}.experts.1.hidden", "odd")


def random_synapse(rng, source, target):
    """A synapse of a random kind, about half of whose weights are zero."""
    ends = {"source": source, "target": target}
    if rng.random() < 0.3:
        ends["expert"] = (ROUTER, int(rng.integers(3)))

    def weights(*shape):
        return rng.integers(-4, 5, shape) / 2 * (rng.random(shape) < 0.6)

    kind = rng.integers(3)
    if kind == 0:
        return Dense(weight=weights(N, N) if rng.random() < 0.7 else np.full((N, N), 0.25), **ends)
    if kind == 1:
        groups = int(rng.integers(1, 3))
        return Conv2d(weight=weights(2, 2 // groups, 3, 3), padding=(1, 1), groups=groups, **ends)
    pairs = rng.permutation(N * N)[: rng.integers(1, 20)]
    return Sparse(rows=pairs // N, columns=pairs % N, weight=weights(len(pairs)), **ends)


def random_run(seed, samples=3):
    """A balanced graph of 2 to 5 hidden populations (some with loops), and a trace of it."""
    rng = np.random.default_rng(seed)
    populations = [Input(name="input", shape=SHAPE, kind=rng.choice(["graded", "binary"]))]
    if rng.random() < 0.5:
        populations.append(Input(name="clock", shape=SHAPE, kind="clock", clock_step=1))
    if rng.random() < 0.3:
        populations.append(Input(name="constant", shape=SHAPE, kind="constant"))
    hidden, synapses = rng.permutation(NAMES)[: rng.integers(2, 6)], []
    for name in hidden:
        sources = [p.name for p in populations]
        if rng.random() < 0.3:
            population = Relay(name=str(name), shape=SHAPE)
        else:
            bias = rng.choice([0.0, 0.25], SHAPE) if rng.random() < 0.4 else np.asarray(0.0)
            decay = float(rng.choice([0.0, 0.5]))
            population = LIF(name=str(name), shape=SHAPE, membrane_decay=decay, bias=bias)
            if rng.random() < 0.4:
                loop = random_synapse(rng, population.name, population.name)
                synapses.append(replace(loop, delay=int(rng.integers(1, 5))))
        populations.append(population)
        chosen = {sources[-1], sources[rng.integers(len(sources))]}
        synapses += [random_synapse(rng, source, population.name) for source in sorted(chosen)]
    populations.append(Readout(name="head.readout", shape=SHAPE))
    synapses += [random_synapse(rng, p.name, "head.readout") for p in populations[:-1]]
    graph = SpikeGraph(
        populations={p.name: p for p in populations},
        synapses=tuple(synapses),
        time_steps=int(rng.integers(2, 5)),
        gate_limits={ROUTER: 1},
    )
    graph = balance_delays(graph)
    inputs = rng.integers(0, 2, (samples, graph.time_steps, *SHAPE)).astype(float)
    inputs *= rng.random(inputs.shape) < 0.7
    return graph, run_reference(graph, inputs)


def random_layout(seed, graph):
    """Populations cut at random, their pieces thrown onto 5 cores of a 3 x 4 mesh."""
    rng = np.random.default_rng(seed)
    blocks = [
        block
        for name in graph.populations
        for block in Grid(name, SHAPE, tuple(int(rng.integers(1, n + 1)) for n in SHAPE))
    ]
    return CoreLayout(
        chip="loihi1",
        chips=1,
        blocks=tuple(blocks),
        core=rng.integers(5, size=len(blocks)),
        row=rng.integers(3, size=5),
        column=rng.integers(4, size=5),
    )


def connections(synapse):
    """(source neuron, target neuron) of every non-zero weight, one at a time."""
    if isinstance(synapse, Dense):
        return [(int(j), int(i)) for i, j in zip(*np.nonzero(synapse.weight), strict=True)]
    if isinstance(synapse, Sparse):
        listed = zip(synapse.columns, synapse.rows, synapse.weight, strict=True)
        return [(int(j), int(i)) for j, i, w in listed if w != 0]
    found = []
    height, width, channels = SHAPE
    per_group = channels // synapse.groups
    for y, x, c in np.ndindex(SHAPE):
        for k, ky, kx in np.ndindex(synapse.weight.shape[1:]):
            y_in, x_in = y + ky - 1, x + kx - 1
            c_in = c // (channels // synapse.groups) * per_group + k
            if 0 <= y_in < height and 0 <= x_in < width and synapse.weight[c, k, ky, kx] != 0:
                source = (y_in * width + x_in) * channels + c_in
                found.append((source, (y * width + x) * channels + c))
    return found


def count_by_loops(graph, trace):
    """The definition, connection by connection and message by message."""
    counts, reached = Counter(), set()
    steps = graph.time_steps
    for synapse in graph.synapses:
        source = graph.populations[synapse.source]
        graded = isinstance(source, Relay) or getattr(source, "kind", "") == "graded"
        late = synapse.delay if synapse.source == synapse.target else 0
        sent = trace.spikes[synapse.source].reshape(trace.samples, steps, N)
        for s, t in np.ndindex(trace.samples, steps):
            for j, i in connections(synapse):
                if sent[s, t, j] != 0:
                    basic = "multiply_accumulates" if graded else "accumulates"
                    kind = {Dense: "dense", Conv2d: "convolution", Sparse: "sparse"}[type(synapse)]
                    counts.update([basic, f"{basic}_{kind}"])
                    counts.update(["weight_reads", "membrane_updates_by_event"])
                    reached.add((synapse.target, s, (t + late) % steps, i))
    for name, population in graph.populations.items():
        for s, t, i in np.ndindex(trace.samples, steps, N):
            sends = trace.spikes[name].reshape(trace.samples, steps, N)[s, t, i] != 0
            if isinstance(population, Input):
                graded = population.kind == "graded"
                counts["graded_messages_sent" if graded else "spikes_sent"] += int(sends)
                continue
            bias = np.broadcast_to(getattr(population, "bias", 0.0), SHAPE).ravel()[i]
            state = "active" if (name, s, t, i) in reached or bias != 0 else "idle"
            if isinstance(population, LIF):
                counts[f"neuron_updates_{state}"] += 1
                counts["spikes_sent"] += int(sends)
                counts["spikes_of_neurons"] += int(sends)
                counts["membrane_reads"] += int(population.membrane_decay > 0)
                counts["membrane_writes"] += int(population.membrane_decay > 0)
            else:
                counts[f"relay_updates_{state}"] += 1
                counts["graded_messages_sent"] += int(sends and isinstance(population, Relay))
    return {operation: counts[operation.value] for operation in UNPLACED}, reached


def count_placed_by_loops(graph, trace, layout, reached):
    """Messages, hops and changes of state, neuron by neuron."""
    counts, steps = Counter(), graph.time_steps
    core_of = {}
    for block, core in zip(layout.blocks, layout.core, strict=True):
        for place in np.ndindex(SHAPE):
            if all(a <= p < h for a, p, h in zip(block.low, place, block.high, strict=True)):
                core_of[block.population, int(np.ravel_multi_index(place, SHAPE))] = int(core)
    for name, population in graph.populations.items():
        if isinstance(population, Readout):
            continue
        graded = isinstance(population, Relay) or getattr(population, "kind", "") == "graded"
        prefix = "graded_" if graded else ""
        sent = trace.spikes[name].reshape(trace.samples * steps, N) != 0
        pairs = [(j, s.target, i) for s in graph.outgoing(name) for j, i in connections(s)]
        for j in range(N):
            own = core_of[name, j]
            for core in {core_of[target, i] for source, target, i in pairs if source == j}:
                times = int(sent[:, j].sum())
                counts[f"{prefix}core_messages"] += times
                east_west = abs(int(layout.column[own]) - int(layout.column[core]))
                north_south = abs(int(layout.row[own]) - int(layout.row[core]))
                counts[f"{prefix}hops_east_west"] += times * east_west
                counts[f"{prefix}hops_north_south"] += times * north_south
    for name, population in graph.populations.items():
        if isinstance(population, Input):
            continue
        bias = np.broadcast_to(getattr(population, "bias", 0.0), SHAPE).ravel()
        inputs = [
            (graph.matrix(s).toarray(), trace.spikes[s.source].reshape(trace.samples, steps, N),
             s.delay if s.source == name else 0)
            for s in graph.incoming(name)
        ]  # fmt: skip
        for s, i in np.ndindex(trace.samples, N):
            v = 0.0
            for t in range(steps):
                changed = (name, s, t, i) in reached or bias[i] != 0
                if isinstance(population, LIF):
                    changed = changed or v != 0
                    current = sum(w[i] @ x[s, (t - late) % steps] for w, x, late in inputs)
                    spike = trace.spikes[name].reshape(trace.samples, steps, N)[s, t, i]
                    v = 0.0 if spike else population.membrane_decay * v + current + bias[i]
                counts["state_changes"] += int(changed)
    return counts


seeds = st.integers(0, 2**32 - 1)


@settings(max_examples=25, deadline=None)
@given(seeds)
def test_counts_equal_loops_over_connections_and_messages(seed):
    graph, trace = random_run(seed, samples=2)
    layout = random_layout(seed, graph)
    expected, reached = count_by_loops(graph, trace)
    assert count_operations(graph, trace).totals == expected
    placed = count_placed_by_loops(graph, trace, layout, reached)
    assert count_operations(graph, trace, layout).totals == {
        **dict.fromkeys(Operation, 0),
        **expected,
        **{Operation(name): count for name, count in placed.items()},
    }


@examples(25)
@given(case=wide_cases())
def test_counts_of_wide_graphs_equal_products_with_their_matrices(case):
    """Strides, dilations, groups, loops with delays: the same definition, with dense 0/1 matrices."""
    graph, trace = case.graph, run_reference(case.graph, case.inputs)
    totals = count_operations(graph, trace).totals
    steps = graph.time_steps
    synops, active = 0, dict.fromkeys((LIF, Relay, Readout), 0)
    reached = {
        name: np.zeros((trace.samples, steps, size(p)), bool)
        for name, p in graph.populations.items()
    }
    for synapse in graph.synapses:
        pattern = (graph.matrix(synapse).toarray() != 0).astype(int)
        sent = (trace.spikes[synapse.source] != 0).reshape(trace.samples, steps, -1).astype(int)
        arriving = sent @ pattern.T
        synops += int(arriving.sum())
        late = synapse.delay if synapse.source == synapse.target else 0
        reached[synapse.target] |= np.roll(arriving, late, axis=1) > 0
    for name, population in graph.populations.items():
        if not isinstance(population, Input):
            bias = np.broadcast_to(getattr(population, "bias", 0), population.shape).ravel() != 0
            active[type(population)] += int((reached[name] | bias).sum())
    assert totals[Operation.WEIGHT_READ] == synops
    assert totals[Operation.NEURON_UPDATE_ACTIVE] == active[LIF]
    assert totals[Operation.RELAY_UPDATE_ACTIVE] == active[Relay] + active[Readout]


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from(sorted(COST_TABLES)))
def test_parts_add_up_to_the_totals(seed, costs):
    graph, trace = random_run(seed)
    counts = count_operations(graph, trace, random_layout(seed, graph))
    for operation in Operation:
        assert sum(part[operation] for part in counts.by_part.values()) == counts.totals[operation]
    report = price(counts, costs)
    for end in ("value", "low", "high"):
        parts = [getattr(p.energy_pj_per_sample, end) for p in report.by_part.values()]
        assert sum(parts) == pytest.approx(getattr(report.energy_pj_per_sample, end), rel=1e-9)


def part_of_trace(trace, chosen):
    spikes = {name: values[chosen] for name, values in trace.spikes.items()}
    return replace(trace, spikes=spikes, logits=trace.logits[chosen])


@settings(max_examples=40, deadline=None)
@given(seeds, st.integers(1, 4), st.sampled_from(sorted(COST_TABLES)))
def test_energy_of_samples_adds_up(seed, cut, costs):
    graph, trace = random_run(seed, samples=5)
    layout = random_layout(seed, graph)
    halves = part_of_trace(trace, slice(cut)), part_of_trace(trace, slice(cut, None))
    whole = count_operations(graph, trace, layout).totals
    first, second = (count_operations(graph, half, layout).totals for half in halves)
    assert whole == {operation: first[operation] + second[operation] for operation in Operation}
    joules = [
        estimate(graph, t, costs, layout=layout).energy_pj_per_sample.value * t.samples
        for t in (trace, *halves)
    ]
    assert joules[0] == pytest.approx(joules[1] + joules[2], rel=1e-9)


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from(sorted(COST_TABLES)))
def test_the_band_holds_the_value(seed, costs):
    graph, trace = random_run(seed)
    report = estimate(graph, trace, costs, layout=random_layout(seed, graph))
    shares = [*report.by_part.values(), *report.by_operation.values(), report]
    for band in (share.energy_pj_per_sample for share in shares):
        assert 0 <= band.low <= band.value <= band.high


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_without_messages_only_updates_remain(seed):
    graph, trace = random_run(seed)
    silent = {name: np.zeros_like(values) for name, values in trace.spikes.items()}
    totals = count_operations(graph, replace(trace, spikes=silent)).totals
    steps, lifs = trace.samples * graph.time_steps, graph.of_kind(LIF)
    driven = sum(int(np.count_nonzero(np.broadcast_to(p.bias, SHAPE))) for p in lifs)
    kept = sum(N for p in lifs if p.membrane_decay > 0) * steps
    passive = len(graph.of_kind(Relay)) + len(graph.of_kind(Readout))
    assert totals == {
        **dict.fromkeys(UNPLACED, 0),
        Operation.NEURON_UPDATE_ACTIVE: driven * steps,
        Operation.NEURON_UPDATE_IDLE: (N * len(lifs) - driven) * steps,
        Operation.RELAY_UPDATE_IDLE: N * passive * steps,
        Operation.MEMBRANE_READ: kept,
        Operation.MEMBRANE_WRITE: kept,
    }


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_more_messages_never_cost_less(seed):
    graph, trace = random_run(seed)
    rng = np.random.default_rng(seed)
    fewer = {
        name: values * (rng.random(values.shape) < 0.5).astype(values.dtype)
        for name, values in trace.spikes.items()
    }
    less = count_operations(graph, replace(trace, spikes=fewer))
    full = count_operations(graph, trace)
    for name, table in COST_TABLES.items():
        if table.chip is None:  # fewer spikes reset fewer membranes: more of them change state
            assert (
                price(less, name).energy_pj_per_sample.value
                <= price(full, name).energy_pj_per_sample.value
            )
