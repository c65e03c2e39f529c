"""Energy: counts worked out by hand, cost tables, reports, refusals."""

import json
import re
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest

from hardware.energy import (
    COST_TABLES,
    AnnLayer,
    Cost,
    Operation,
    ann_energy,
    count_operations,
    estimate,
    get_table,
)
from hardware.energy.costs import Grade
from hardware.energy.operations import BASIC
from hardware.energy.parts import part_of
from hardware.energy.tally import Tally
from hardware.errors import HardwareError
from hardware.ir import (
    LIF,
    Dense,
    Input,
    Readout,
    Relay,
    Sparse,
    SpikeGraph,
    one_to_one,
    run_reference,
)
from hardware.passes.balance_delays import balance_delays


def build(populations, synapses, time_steps=2, gate_limits=None):
    return balance_delays(
        SpikeGraph(
            populations={p.name: p for p in populations},
            synapses=tuple(synapses),
            time_steps=time_steps,
            gate_limits=gate_limits or {},
        )
    )


def dense(source, target, rows, **extra):
    return Dense(source=source, target=target, weight=np.array(rows, dtype=float), **extra)


@pytest.fixture
def small():
    """Input 3 -> stem 2 -> relay 2 -> head 2 (memoryless, with a clock) -> readout 2, T = 2."""
    tick = np.array([0])
    graph = build(
        [
            Input(name="input", shape=(3,)),
            Input(name="clock", shape=(1,), kind="clock"),
            LIF(name="stem.lif0", shape=(2,)),
            Relay(name="stream.0", shape=(2,)),
            LIF(
                name="head.x",
                shape=(2,),
                membrane_decay=0.0,
                threshold=np.asarray(1.5),
                bias=np.array([0.0, 1.0]),
            ),
            Readout(name="head.readout", shape=(2,)),
        ],
        [
            dense("input", "stem.lif0", [[1, 0, 0.25], [0, 5, 0]]),
            dense("stem.lif0", "stream.0", [[1, 1], [0, 1]]),
            one_to_one("stream.0", "head.x", 2, 2.0),
            Sparse(
                source="clock",
                target="head.x",
                rows=tick + 1,
                columns=tick,
                weight=np.array([0.25]),
            ),
            dense("head.x", "head.readout", [[1, 1], [1, 1]]),
        ],
    )
    return graph, run_reference(graph, np.array([[[1.0, 0.0, 2.0]]]))


def test_counts_worked_out_by_hand(small):
    # Each step: two non-zero inputs with one connection each; stem neuron 0 spikes (1.5 > 1), its
    # fan-out is 1; relay neuron 0 sends 1 to one neuron; head neuron 0 spikes (2 > 1.5) into 2.
    # The clock ticks once. Head neuron 1 is driven by its bias.
    assert count_operations(*small).totals == {
        Operation.ACCUMULATE: 2 * (1 + 2) + 1,
        Operation.MULTIPLY_ACCUMULATE: 2 * (2 + 1),
        Operation.WEIGHT_READ: 13,
        Operation.NEURON_UPDATE_ACTIVE: 2 * (1 + 2),
        Operation.NEURON_UPDATE_IDLE: 2 * 1,
        Operation.RELAY_UPDATE_ACTIVE: 2 * (1 + 2),
        Operation.RELAY_UPDATE_IDLE: 2 * 1,
        Operation.SPIKE: 2 * (1 + 1) + 1,
        Operation.GRADED_MESSAGE: 2 * (2 + 1),
        Operation.MEMBRANE_READ: 2 * 2,  # the stem only: the head keeps no membrane
        Operation.MEMBRANE_WRITE: 2 * 2,
        Operation.ACCUMULATE_DENSE: 2 * (1 + 2),
        Operation.ACCUMULATE_SPARSE: 1,  # the clock's
        Operation.ACCUMULATE_CONVOLUTION: 0,
        Operation.MULTIPLY_ACCUMULATE_DENSE: 2 * 2,
        Operation.MULTIPLY_ACCUMULATE_SPARSE: 2 * 1,
        Operation.MULTIPLY_ACCUMULATE_CONVOLUTION: 0,
        Operation.EVENT_UPDATE: 13,
        Operation.NEURON_SPIKE: 2 * (1 + 1),  # without the clock's
    }


def test_parts_worked_out_by_hand(small):
    parts = count_operations(*small).by_part
    assert list(parts) == ["input", "stem", "residual", "head"]
    synops = {
        part: (counts[Operation.ACCUMULATE], counts[Operation.MULTIPLY_ACCUMULATE])
        for part, counts in parts.items()
    }
    assert synops == {"input": (0, 0), "stem": (0, 4), "residual": (2, 0), "head": (5, 2)}
    assert parts["input"][Operation.GRADED_MESSAGE] == 4
    assert parts["input"][Operation.SPIKE] == 1


def test_tallies_follow_the_graph_and_its_samples(small):
    graph, trace = small
    counts = count_operations(graph, trace)
    assert [t.where for t in counts.synapses] == [
        f"{s.source} -> {s.target}" for s in graph.synapses
    ]
    assert [t.where for t in counts.populations] == list(graph.populations)
    twice = count_operations(graph, run_reference(graph, np.array([[[1.0, 0.0, 2.0]]] * 2)))
    assert twice.samples == 2
    assert twice.totals == {operation: 2 * n for operation, n in counts.totals.items()}
    assert twice.per_sample == counts.per_sample
    assert twice.synops_per_sample == 13.0


@pytest.mark.parametrize(
    ("costs", "value", "low", "high"),
    [
        ("horowitz45", 7 * 0.9 + 6 * 4.6, 33.9, 33.9 + 8 * 5.5 + 8 * 0.9),
        ("loihi1", 1960.9, 1505.5, 2651.4),
    ],
)
def test_energy_worked_out_by_hand(small, costs, value, low, high):
    # loihi1: 7 AC, 6 graded operations at 4 (1 to 8) events, 12 active and 4 idle updates, 5
    # spikes, 6 graded messages at 4 (1 to 8) spikes.
    report = estimate(*small, costs=costs)
    energy = report.energy_pj_per_sample
    assert [energy.value, energy.low, energy.high] == pytest.approx([value, low, high], rel=1e-12)
    assert report.synops_per_sample == 13.0
    assert (report.samples, report.costs) == (1, costs)
    for shares in (report.by_part, report.by_operation):
        total = sum(share.energy_pj_per_sample.value for share in shares.values())
        assert total == pytest.approx(energy.value, rel=1e-12)


def test_updates_on_a_loop_stay_inside_the_sample():
    # The neuron spikes at step 1 only (the clock); its own spike reaches it one step later, at
    # step 2. A clock at the last step wraps to the start of the same window.
    index = np.array([0])
    for clock_step, reached in ((1, {1, 2}), (2, {2, 0})):
        graph = build(
            [
                Input(name="input", shape=(1,)),
                Input(name="clock", shape=(1,), kind="clock", clock_step=clock_step),
                LIF(name="blocks.0.moe.latch", shape=(1,), membrane_decay=0.0),
                Readout(name="head.readout", shape=(1,)),
            ],
            [
                one_to_one("clock", "blocks.0.moe.latch", 1, 2.0),
                Sparse(
                    source="blocks.0.moe.latch",
                    target="blocks.0.moe.latch",
                    rows=index,
                    columns=index,
                    weight=np.array([0.5]),
                ),
                one_to_one("blocks.0.moe.latch", "head.readout", 1),
                one_to_one("input", "head.readout", 1),
            ],
            time_steps=3,
        )
        counts = count_operations(graph, run_reference(graph, np.zeros((2, 1, 1)))).by_part[
            "router"
        ]
        assert counts[Operation.NEURON_UPDATE_ACTIVE] == 2 * len(reached)
        assert counts[Operation.NEURON_UPDATE_IDLE] == 2 * (3 - len(reached))
        assert counts[Operation.ACCUMULATE] == 2 * 2  # clock and loop, once a sample


def mixture(open_expert):
    """Two experts behind gates; only `open_expert` has a gate that spikes (None: neither)."""
    moe, populations, synapses = "blocks.0.moe", [], []
    for e in (0, 1):
        name, expert = f"{moe}.experts.{e}", (moe, e)
        populations += [
            LIF(name=f"{name}.gated", shape=(2,), membrane_decay=0.0, threshold=np.asarray(1.5)),
            LIF(name=f"{name}.hidden", shape=(3,)),
        ]
        gate = np.zeros((2, 2))
        gate[:, e] = 1.0
        synapses += [
            one_to_one(f"{moe}.x", f"{name}.gated", 2),
            dense(f"{moe}.gate", f"{name}.gated", gate),
            dense(f"{name}.gated", f"{name}.hidden", np.full((3, 2), 2.0), expert=expert),
            dense(f"{name}.hidden", "stream.1", np.ones((2, 3)), expert=expert),
        ]
    bias = np.array([1.0 if e == open_expert else -1.0 for e in (0, 1)])
    return build(
        [
            Input(name="input", shape=(2,), kind="binary"),
            LIF(name=f"{moe}.x", shape=(2,), threshold=np.asarray(0.5)),
            LIF(name=f"{moe}.gate", shape=(2,), threshold=np.asarray(0.5), bias=bias),
            *populations,
            Relay(name="stream.1", shape=(2,)),
            Readout(name="head.readout", shape=(2,)),
        ],
        [
            one_to_one("input", f"{moe}.x", 2),
            *synapses,
            one_to_one("stream.1", "head.readout", 2),
        ],
        gate_limits={moe: 1},
    )


def test_a_silent_expert_triggers_no_operation_behind_its_gate():
    graph = mixture(open_expert=1)
    counts = count_operations(graph, run_reference(graph, np.ones((1, 1, 2))))
    by_synapse = {t.where: t for t in counts.synapses}

    def accumulates(pair):
        return by_synapse[pair].operations[Operation.ACCUMULATE]

    for e, opened in ((0, 0), (1, 1)):
        name = f"blocks.0.moe.experts.{e}"
        assert accumulates(f"{name}.gated -> {name}.hidden") == opened * 2 * 2 * 3
        assert accumulates(f"{name}.hidden -> stream.1") == opened * 2 * 3 * 2
        assert by_synapse[f"{name}.hidden -> stream.1"].part == f"experts.{e}"
        assert accumulates(f"blocks.0.moe.x -> {name}.gated") == 2 * 2  # reaches every gate
    silent = counts.by_part["experts.0"]
    assert silent[Operation.ACCUMULATE] == 0  # what reaches its gate is the router's cost
    assert silent[Operation.SPIKE] == 0
    assert silent[Operation.NEURON_UPDATE_IDLE] == 2 * 3  # hidden neurons are still updated


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("input", "input"),
        ("constant", "input"),
        ("clock", "input"),
        ("stem.lif1", "stem"),
        ("prompt.relay", "prompt"),
        ("stream.0", "residual"),
        ("blocks.0.attention.x", "attention"),
        ("blocks.0.attention.and", "attention"),
        ("blocks.0.prompt.lif", "prompt"),
        ("blocks.0.moe.x", "mlp"),
        ("blocks.0.moe.score", "router"),
        ("blocks.0.moe.compare", "router"),
        ("blocks.0.moe.gate", "router"),
        ("blocks.0.moe.latch", "router"),
        ("blocks.0.moe.experts.2.gated", "router"),
        ("blocks.1.moe.experts.10.hidden", "experts.10"),
        ("blocks.0.mlp.hidden", "mlp"),
        ("head.readout", "head"),
        ("blocks.0.unheard_of", "other"),
        ("stemless", "other"),
    ],
)
def test_parts_from_names(name, part):
    assert part_of(name) == part


def refused(text):
    return pytest.raises(HardwareError, match=re.escape(text))


def test_a_trace_that_does_not_belong_is_refused(small):
    graph, trace = small
    with refused("the trace was recorded from another graph (fingerprint 123456789abc"):
        count_operations(graph, replace(trace, meta={"fingerprint": "123456789abcdef"}))
    with refused("the trace was recorded from another graph (fingerprint None"):
        count_operations(graph, replace(trace, meta={}))
    with refused("the trace lacks population 'stem.lif0'; record all populations"):
        count_operations(graph, run_reference(graph, np.ones((1, 1, 3)), record=["input", "clock"]))
    cut = {**trace.spikes, "stem.lif0": trace.spikes["stem.lif0"][:, :1]}
    with refused("the trace of 'stem.lif0' has shape (1, 1, 2); needs (1, 2, 2)"):
        count_operations(graph, replace(trace, spikes=cut))
    empty = {name: values[:0] for name, values in trace.spikes.items()}
    with refused("the trace has no samples; record at least 1"):
        count_operations(graph, replace(trace, spikes=empty, logits=trace.logits[:0]))


def test_a_trace_of_the_same_network_with_other_weights_is_refused(small):
    """Same names, shapes and spikes: only the fingerprint can tell."""
    graph, trace = small
    first, *others = graph.synapses
    other = graph.with_(synapses=[replace(first, weight=first.weight * 1.001), *others])
    assert list(other.populations) == list(graph.populations)
    twin = run_reference(other, np.ones((trace.samples, 1, 3)))
    assert all(twin.spikes[n].shape == s.shape for n, s in trace.spikes.items())
    assert trace.meta["fingerprint"] == graph.fingerprint != other.fingerprint
    for call in (count_operations, estimate):
        with refused("the trace was recorded from another graph"):
            call(other, trace)
        with refused("the trace was recorded from another graph"):
            call(graph, twin)
        call(other, twin)


def test_delays_that_are_not_balanced_are_refused(small):
    graph, trace = small
    late = graph.with_(synapses=[replace(graph.synapses[0], delay=3), *graph.synapses[1:]])
    with refused("delays are not balanced; count on the graph that balance_delays returns"):
        count_operations(late, replace(trace, meta={"fingerprint": late.fingerprint}))


def test_unknown_tables_are_refused():
    with refused(
        "unknown cost table 'horowitz'; use one of horowitz45, horowitz45-int, loihi1, loihi1-fitted, lemaire, yan; "
        "did you mean 'horowitz45'?"
    ):
        get_table("horowitz")
    with pytest.raises(
        HardwareError,
        match=r"unknown cost table 'zzz'; use one of horowitz45, horowitz45-int, loihi1, loihi1-fitted, lemaire, yan$",
    ):
        get_table("zzz")
    for name in ("loihi2", "Loihi 2"):
        with refused(f"cost table '{name}': no table of energies per operation has been published"):
            get_table(name)


def test_every_constant_has_a_source_a_grade_and_an_ordered_band():
    for name, table in COST_TABLES.items():
        assert table.name == name == get_table(name).name
        assert all([table.title, table.boundary, table.caveats])
        assert set(BASIC) <= set(table.costs) | set(table.not_priced)
        assert all(reason.strip() for reason in table.not_priced.values())
        for cost in table.costs.values():
            assert all([cost.source.strip(), cost.note.strip()])
            assert cost.grade in get_args(Grade)
            assert cost.grade != "measured"  # none of today's constants is
            band = cost.of(Tally(where="", part="", operations={}, weights=100, states=100))
            assert 0 <= band.low <= band.value <= band.high


def test_bad_costs_are_refused():
    good = Cost(value_pj=1.0, low_pj=0.5, high_pj=2.0, source="x", grade="fitted", note="")
    with refused("cost 1.0 pJ with band 1.5 to 2.0; needs 0 <= low <= value <= high"):
        replace(good, low_pj=1.5)
    with refused("cost 1.0 pJ with band 0.5 to inf"):
        replace(good, high_pj=float("inf"))
    with refused("cost 1.0 pJ has no source"):
        replace(good, source=" ")
    with refused("grade 'guess'; use one of measured, fitted"):
        replace(good, grade="guess")
    table = get_table("loihi1")
    with refused(
        "cost table 'loihi1': spikes_sent must stand in exactly one of costs and not_priced"
    ):
        replace(table, not_priced={**table.not_priced, Operation.SPIKE: "twice"})
    with refused("cost table 'loihi1': weight_reads must stand in exactly one of"):
        replace(table, not_priced={})


def test_the_report_is_json_and_says_what_it_is(small):
    report = estimate(*small)
    values = json.loads(json.dumps(report.as_dict()))
    assert values["kind"] == "estimate"
    assert values["energy_pj_per_sample"]["value"] == pytest.approx(33.9)
    assert values["by_operation"]["accumulates"]["grade"] == "convention"
    assert values["counts_per_sample"]["membrane_reads"] == 4.0
    assert values["not_priced"]["membrane_reads"] == "the convention ignores memory"
    text = "\n".join(report.table())
    assert text.startswith("Estimated energy, not measured: The field's convention")
    assert re.search(r"^multiply_accumulates +6\.0 +27\.6 +27\.6 +27\.6  convention$", text, re.M)
    assert re.search(r"^weight_reads +13\.0 +not priced$", text, re.M)
    assert re.search(r"^total +13\.0 +33\.9 +33\.9 +85\.1$", text, re.M)
    assert "boundary: arithmetic of triggered synaptic operations only" in text
    assert max(len(line) for line in text.splitlines() if "  " in line) <= 110


def test_a_table_object_serves_as_well_as_its_name(small):
    assert estimate(*small, costs=COST_TABLES["loihi1"]) == estimate(*small, costs="loihi1")


def test_the_non_spiking_twin_worked_out_by_hand():
    layers = [
        AnnLayer(name="stem", macs=100, nonzero_macs=90),
        AnnLayer(name="mlp", macs=50, nonzero_macs=10),
    ]
    report = ann_energy(layers, samples=7)
    energy = report.energy_pj_per_sample
    assert [energy.value, energy.low, energy.high] == pytest.approx([690.0, 460.0, 690.0])
    assert report.synops_per_sample == 150.0
    assert report.by_part["mlp"].energy_pj_per_sample.low == pytest.approx(46.0)
    assert report.samples == 7
    assert ann_energy(layers).samples is None
    json.dumps(report.as_dict())
    assert "over 7 samples" in report.table()[1]


def test_bad_layers_are_refused():
    layer = AnnLayer(name="a", macs=1, nonzero_macs=1)
    with refused("layer 'a': nonzero_macs=2, macs=1; needs 0 <= nonzero_macs <= macs"):
        AnnLayer(name="a", macs=1, nonzero_macs=2)
    with refused("at least one layer, and a name of its own for each"):
        ann_energy([layer, layer])
    with refused("at least one layer, and a name of its own for each"):
        ann_energy([])
    with refused("cost table 'loihi1' has no multiply-accumulate for a non-spiking network"):
        ann_energy([layer], "loihi1")


def test_blocks_of_a_network_of_ones_own_have_the_same_parts():
    assert part_of("layers.4.moe.experts.2.hidden") == "experts.2"
    assert part_of("layers.4.attention.q") == "attention"
    assert part_of("layers.6.readout") == "head"
    assert part_of("layers.1") == "other"
