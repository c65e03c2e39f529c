"""The tables that price memory, messages and hops: energies worked out by hand."""

import re
from dataclasses import replace

import numpy as np
import pytest

from hardware.energy import (
    Band,
    MemoryCost,
    Operation,
    StaticPower,
    count_operations,
    estimate,
    get_table,
    price,
)
from hardware.errors import HardwareError, MappingError
from hardware.ir import LIF, Conv2d, Dense, Input, Readout, Sparse, SpikeGraph, run_reference
from hardware.loihi.blocks import Block
from hardware.loihi.layout import CoreLayout
from hardware.loihi.mapping import map_graph
from hardware.passes.balance_delays import balance_delays


def refused(text, kind=HardwareError):
    return pytest.raises(kind, match=re.escape(text))


@pytest.fixture
def chain():
    """Binary input 2 -> (dense, all 2) LIF 3 -> (one-to-one) readout 3; T = 2; one step of input."""
    graph = balance_delays(
        SpikeGraph(
            populations={
                "input": Input(name="input", shape=(2,), kind="binary"),
                "stem.lif0": LIF(name="stem.lif0", shape=(3,)),
                "head.readout": Readout(name="head.readout", shape=(3,)),
            },
            synapses=(
                Dense(
                    source="input", target="stem.lif0", weight=np.array([[2, 2], [1, 0], [0, 0]])
                ),
                Sparse(
                    source="stem.lif0",
                    target="head.readout",
                    rows=np.arange(3),
                    columns=np.arange(3),
                    weight=np.ones(3),
                ),
            ),
            time_steps=2,
        )
    )
    trace = run_reference(graph, np.array([[[1.0, 0.0], [0.0, 0.0]]]))
    layout = CoreLayout(
        chip="loihi1",
        chips=1,
        blocks=(
            Block("input", (0,), (2,)),
            Block("stem.lif0", (0,), (1,)),
            Block("stem.lif0", (1,), (3,)),
            Block("head.readout", (0,), (3,)),
        ),
        core=np.array([0, 1, 2, 2]),
        row=np.array([0, 0, 2]),
        column=np.array([0, 3, 1]),
    )
    return graph, trace, layout


# Step 1: input 0 spikes into neurons 0 (u = 2) and 1 (u = 1); neuron 0 spikes, neuron 1 stays at 1.
# Step 2: nothing arrives; neuron 1 decays.


def test_placed_counts_worked_out_by_hand(chain):
    totals = count_operations(*chain).totals
    assert totals[Operation.STATE_CHANGE] == 3 + 1  # 0 and 1, then 1 again; readout 0 once
    assert totals[Operation.CORE_MESSAGE] == 2 + 1  # input to cores 1 and 2, neuron 0 to core 2
    assert totals[Operation.HOP_EAST_WEST] == (3 + 1) + 2
    assert totals[Operation.HOP_NORTH_SOUTH] == (0 + 2) + 2
    assert totals[Operation.NEURON_SPIKE] == 1
    assert totals[Operation.SPIKE] == 2
    graded = [o for o in Operation if o.startswith("graded_")]
    assert len(graded) == 4
    assert all(totals[o] == 0 for o in graded)


def test_loihi1_fitted_worked_out_by_hand(chain):
    graph, trace, layout = chain
    report = estimate(graph, trace, "loihi1-fitted", layout=layout)
    synapses = 2 * 35.5 + 1 * 33.6
    somas = 2 * (3 + 3) * 51.2 + 4 * 21.6 + 69.3
    network = 3 * 111 + 6 * 3.0 + 4 * 4.2
    energy = report.energy_pj_per_sample
    assert energy.value == pytest.approx(synapses + somas + network, rel=1e-12)
    assert energy.low == pytest.approx(energy.value * 0.883, rel=1e-12)
    assert energy.high == pytest.approx(energy.value * 1.117, rel=1e-12)
    assert report.static is not None
    assert report.static.energy_pj_per_sample.value == pytest.approx(2 * 104 * 465)
    assert "static power, at least" in "\n".join(report.table())
    sent = report.by_part["input"].energy_pj_per_sample.value  # the input's messages, nothing else
    assert sent == pytest.approx(2 * 111 + 4 * 3.0 + 2 * 4.2)


def test_static_power_follows_the_chips(chain):
    graph, trace, layout = chain
    one, four = (
        estimate(graph, trace, "loihi1-fitted", layout=replace(layout, chips=n)) for n in (1, 4)
    )
    assert one.energy_pj_per_sample == four.energy_pj_per_sample
    assert one.static is not None
    assert four.static is not None
    ends = ("value", "low", "high")
    singles = [getattr(one.static.energy_pj_per_sample, end) for end in ends]
    fours = [getattr(four.static.energy_pj_per_sample, end) for end in ends]
    assert fours == pytest.approx([4 * e for e in singles])


def test_a_convolution_has_its_own_price_and_reaches_cores_through_its_taps():
    # A 1 x 4 map, kernel 1 x 3 whose middle tap is zero: position x reaches x - 1 and x + 1 only.
    weight = np.array([[[[1.0, 0.0, 1.0]]]])
    graph = balance_delays(
        SpikeGraph(
            populations={
                "input": Input(name="input", shape=(1, 4, 1), kind="binary"),
                "stem.lif0": LIF(name="stem.lif0", shape=(1, 4, 1)),
                "head.readout": Readout(name="head.readout", shape=(1,)),
            },
            synapses=(
                Conv2d(source="input", target="stem.lif0", weight=weight, padding=(0, 1)),
                Dense(source="stem.lif0", target="head.readout", weight=np.ones((1, 4))),
            ),
            time_steps=1,
        )
    )
    trace = run_reference(graph, np.array([0, 1, 0, 0]).reshape(1, 1, 1, 4, 1))
    layout = CoreLayout(
        chip="loihi1",
        chips=1,
        blocks=(
            Block("input", (0, 0, 0), (1, 4, 1)),
            *(Block("stem.lif0", (0, x, 0), (1, x + 1, 1)) for x in range(4)),
            Block("head.readout", (0,), (1,)),
        ),
        core=np.array([0, 1, 2, 3, 4, 5]),
        row=np.zeros(6, int),
        column=np.arange(6),
    )
    counts = count_operations(graph, trace, layout)
    assert counts.totals[Operation.CORE_MESSAGE] == 2  # cores 1 and 3
    assert counts.totals[Operation.HOP_EAST_WEST] == 1 + 3
    report = price(counts, "loihi1-fitted")
    by_kind = report.by_operation[Operation.ACCUMULATE_CONVOLUTION].energy_pj_per_sample
    assert by_kind.value == pytest.approx(2 * 24.0)


def test_lemaire_worked_out_by_hand(chain):
    graph, trace, _ = chain
    report = estimate(graph, trace, "lemaire")

    def sram(words):  # below 8 kB: from nothing to 10 pJ
        return 10.0 * 4 * words / 8192

    first = 2 * (0.2 + sram(6) + 2 * sram(3))  # synops: arithmetic, weight, membrane twice
    second = 1 * (0.2 + sram(3) + 2 * sram(3))
    updates = 6 * (3.2 + 2 * sram(3)) + 6 * 0.1
    spikes = 2 * (2 * sram(1000) + 2 * 3.1 + 0.1)
    energy = report.energy_pj_per_sample
    assert energy.value == pytest.approx(first + second + updates + spikes, rel=1e-12)
    reads = report.by_operation[Operation.WEIGHT_READ].energy_pj_per_sample
    assert reads.low == reads.value  # small memories already
    assert reads.high == pytest.approx(3 * 100.0)


def test_memory_costs_rise_with_the_memory_and_stop_at_the_last_point():
    cost = get_table("lemaire").costs[Operation.WEIGHT_READ]
    assert isinstance(cost, MemoryCost)
    sizes = {
        4096: 5,
        8192: 10,
        20 * 1024: 15,
        32 * 1024: 20,
        528 * 1024: 60,
        2**20: 100,
        2**30: 100,
    }
    assert {size: cost.at(size) for size in sizes} == pytest.approx(sizes)
    with refused("memory cost of weights: points ((0.0, 0.0), (0.0, 1.0)) must rise"):
        replace(cost, points=((0.0, 0.0), (0.0, 1.0)))
    with refused("memory cost of weights has no source"):
        replace(cost, source="")


def test_yan_worked_out_by_hand(chain):
    graph, trace, _ = chain
    energy = estimate(graph, trace, "yan").energy_pj_per_sample
    add = 0.05448
    assert energy.value == pytest.approx((3 + 6 + 6) * add + 2 * 3.0)
    assert energy.low == pytest.approx((3 + 6) * add + 2 * 0.25)
    assert energy.high == pytest.approx((3 + 18 + 6) * add + 2 * 48 + 3 * 8 * 20.3)


def test_a_table_that_needs_a_layout_is_refused_without_it(chain):
    graph, trace, layout = chain
    words = "cost table 'loihi1-fitted' needs a layout on loihi1, and "
    with refused(f"{words}there is none; give layout=map_graph(graph, 'loihi1').layout"):
        estimate(graph, trace, "loihi1-fitted")
    with refused(f"{words}there is none"):
        price(count_operations(graph, trace), "loihi1-fitted")
    with refused(f"{words}this one is on loihi2"):
        estimate(graph, trace, "loihi1-fitted", layout=replace(layout, chip="loihi2"))
    with refused("loihi1-fitted': accumulates_dense is part of accumulates; price one of the two"):
        costs, reasons = (
            dict(get_table("loihi1-fitted").costs),
            dict(get_table("loihi1-fitted").not_priced),
        )
        costs[Operation.ACCUMULATE] = costs[Operation.ACCUMULATE_DENSE]
        del reasons[Operation.ACCUMULATE]
        replace(get_table("loihi1-fitted"), costs=costs, not_priced=reasons)
    with refused("loihi1-fitted': state_changes depends on where neurons lie; name the chip"):
        replace(get_table("loihi1-fitted"), chip=None)


def test_a_layout_of_another_graph_is_refused(chain):
    graph, trace, layout = chain
    fewer = replace(layout, blocks=layout.blocks[:3], core=layout.core[:3])
    with refused("layout does not cover population 'head.readout' of shape (3,)", MappingError):
        count_operations(graph, trace, fewer)
    other = replace(layout, blocks=(Block("input", (0,), (3,)), *layout.blocks[1:]))
    with refused("the layout does not cover population 'input' of shape (2,); map", MappingError):
        count_operations(graph, trace, other)


def test_bad_static_power_is_refused():
    one = Band(value=1, low=1, high=1)
    good = StaticPower(power_mw=one, step_ns=one, source="x", grade="measured", note="")
    with refused("time of a step 1 with band 2 to 1; needs 0 <= low <= value <= high"):
        replace(good, step_ns=Band(value=1, low=2, high=1))
    with refused("static power has no source"):
        replace(good, source="")


def test_the_mapping_lays_out_every_neuron_once(chain):
    graph, trace, _ = chain
    report = map_graph(graph, "loihi1", trace=trace, pack=False)
    counts = count_operations(graph, trace, report.layout)
    assert (counts.chip, counts.chips) == ("loihi1", 1)
    # No neuron has targets in two cores through one synapse, so the mapping's messages are the same.
    assert counts.totals[Operation.CORE_MESSAGE] == report.traffic.sum() == 3 - 1
    hops = counts.totals[Operation.HOP_EAST_WEST] + counts.totals[Operation.HOP_NORTH_SOUTH]
    assert hops == report.placed.hops
