"""The grid of few-bit weights: the target's own, and the exponent that loses least."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_models import settled_model, tiny_config, tiny_images

from hardware.errors import GraphError
from hardware.ir import run_reference
from hardware.lowering import lower
from hardware.passes.bounds import check_bounds
from hardware.passes.grid import WeightGrid
from hardware.passes.plan import apply_plan
from hardware.passes.quantise import choose_plan, quantise
from hardware.simulate import to_inputs


def lava_weight(weight, bits):
    """Lava 0.10's rule for mixed signs: clip to -256..255, drop the low bits by arithmetic shift."""
    dropped = 8 - bits + 1
    return (np.clip(weight, -256, 255) >> dropped) << dropped


@pytest.mark.parametrize("bits", range(2, 9))
def test_every_mantissa_is_one_that_lava_keeps(bits):
    grid = WeightGrid(bits)
    mantissas = grid.mantissa(np.linspace(-400, 400, 4001), 0)
    assert np.array_equal(lava_weight(mantissas, bits), mantissas)
    assert len(np.unique(mantissas)) == 2**bits - 1  # all but the lowest, which has no twin
    assert mantissas.max() == -mantissas.min() == grid.largest


@pytest.mark.parametrize(("bits", "weight", "expected"), [
    (8, [3.0, 5.0, -3.0, 254.9, 300.0], [4, 4, -4, 254, 254]),  # halves to even steps
    (4, [15.9, 16.1, -48.0, 250.0, -999.0], [0, 32, -64, 224, -224]),
    (2, [63.0, 65.0, -200.0], [0, 128, -128]),
])  # fmt: skip
def test_rounding_by_hand(bits, weight, expected):
    assert WeightGrid(bits).mantissa(np.array(weight), 0).tolist() == expected


def test_the_exponent_clips_a_lone_outlier_when_that_loses_less():
    grid = WeightGrid(4)
    even, lone = np.linspace(-224, 224, 101), np.concatenate([np.linspace(-60, 60, 1001), [224.0]])
    assert grid.exponent(even) == 0
    chosen = grid.exponent(lone)
    assert chosen < 0
    assert grid.error(lone, chosen) == min(grid.error(lone, e) for e in range(-5, 2))
    important = np.where(lone == 224, 1e9, 1.0)  # unless that weight is the one that counts
    assert grid.exponent(lone, important) == 0
    assert WeightGrid(8).exponent(lone) == 0


def test_no_sum_is_ever_floored():
    for bits in range(2, 9):
        grid = WeightGrid(bits)
        exponent = grid.exponent(np.array([1e-3]))
        assert exponent >= grid.lowest_exponent
        assert grid.step * 2.0**grid.lowest_exponent == 1


@pytest.mark.parametrize("bits", [1, 9, 4.0, True])
def test_other_numbers_of_bits_are_refused(bits):
    graph = lower(settled_model(tiny_config()))
    with pytest.raises(GraphError, match=f"weight_bits={bits}; use 2 to 8"):
        quantise(graph, weight_bits=bits)


def test_fewer_bits_stay_in_range_and_on_the_grid_and_change_more_spikes():
    config = tiny_config()
    graph = lower(settled_model(config))
    inputs = to_inputs(graph, tiny_images(config, 40))
    trace = run_reference(graph, inputs)
    counted = {"and", "or", "gate", "choice", "latch", "register"}
    changed = []
    for bits in (8, 5, 3, 2):
        program = quantise(graph, weight_bits=bits)
        check_bounds(program)
        for synapse in program.synapses:
            step = 2 if program.populations[synapse.target].role in counted else 2 ** (9 - bits)
            if program.populations[synapse.source].name != "constant":
                assert not (synapse.weight % step).any(), (synapse.source, synapse.target)
        spikes = run_reference(program, inputs).spikes["head.x"]
        changed.append((spikes != trace.spikes["head.x"]).mean())
    assert changed == sorted(changed)
    assert changed[0] < 0.05 < changed[-1]


def test_a_plan_with_headroom_lets_weights_grow():
    graph = lower(settled_model(tiny_config()))
    tight, loose = choose_plan(graph), choose_plan(graph, headroom=4.0)
    relays = [n for n in graph.populations if n.startswith("stream.")]
    assert all(loose.scales[n] < tight.scales[n] for n in relays)
    grown = graph.with_(
        synapses=[
            s if graph.populations[s.source].role == "relay" else _times(graph, s, 1.8)
            for s in graph.synapses
        ]
    )
    check_bounds(apply_plan(grown, loose))
    with pytest.raises(GraphError, match="its accumulated input may reach"):
        check_bounds(apply_plan(_all_times(graph, 8.0), tight))


def _times(graph, synapse, factor):
    learns = graph.populations[synapse.target].role in ("neuron", "relay", "readout")
    return replace(synapse, weight=synapse.weight * factor) if learns else synapse


def _all_times(graph, factor):
    return graph.with_(synapses=[_times(graph, s, factor) for s in graph.synapses])
