"""Mapping onto Loihi: published cases, limits that hold, and traffic that is counted right."""

import json
from dataclasses import replace

import numpy as np
import pytest
from tiny_models import settled_model, tiny_config, tiny_images

from hardware.errors import MappingError
from hardware.ir import LIF, Conv2d, Dense, Input, Readout, SpikeGraph
from hardware.ir.synapses import conv_output_shape, one_to_one
from hardware.loihi.blocks import Grid
from hardware.loihi.chips import CHIPS
from hardware.loihi.mapping import map_graph, messages_sent
from hardware.loihi.partition import partition
from hardware.loihi.placement import build_mesh, evaluate, place
from hardware.lowering import lower
from hardware.simulate import simulate

# ---- a case from the literature

#: Shape, kernel, stride, padding of the PilotNet of lava-dl's tutorial, and the cores that Intel's
#: compiler gave each layer (tutorials/lava/lib/dl/netx/pilotnet_snn/benchmark.ipynb): 74 in all.
PILOTNET_CONVS = [
    (24, 3, (2, 2), (0, 0), 25),
    (36, 3, (2, 2), (0, 0), 13),
    (48, 3, (2, 2), (0, 0), 3),
    (64, 3, (1, 2), (0, 1), 3),
    (64, 3, (1, 1), (0, 0), 2),
]
PILOTNET_DENSE = [(100, 12), (50, 1), (10, 1), (1, 1)]
PILOTNET_INPUT_CORES = 13


def pilotnet():
    """(graph, cores that the compiler gave each population)."""
    shape, before = (200, 66, 3), "input"
    populations = {"input": Input(name="input", shape=shape)}
    synapses, cores = [], {"input": PILOTNET_INPUT_CORES}
    for index, (channels, kernel, stride, padding, expected) in enumerate(PILOTNET_CONVS):
        name = f"conv{index}"
        weight = np.ones((channels, shape[2], kernel, kernel))
        synapse = Conv2d(source=before, target=name, weight=weight, stride=stride, padding=padding)
        shape = conv_output_shape(shape, synapse)
        populations[name] = LIF(name=name, shape=shape)
        synapses.append(synapse)
        before, cores[name] = name, expected
    size = int(np.prod(shape))
    for index, (width, expected) in enumerate(PILOTNET_DENSE):
        name = f"dense{index}"
        kind = LIF if index < len(PILOTNET_DENSE) - 1 else Readout
        populations[name] = kind(name=name, shape=(width,))
        synapses.append(Dense(source=before, target=name, weight=np.ones((width, size))))
        size, before, cores[name] = width, name, expected
    return SpikeGraph(populations=populations, synapses=tuple(synapses), time_steps=16), cores


def test_pilotnet_takes_the_cores_that_the_compiler_gave_it():
    graph, expected = pilotnet()
    assert graph.populations["conv4"].shape == (20, 2, 64)
    report = map_graph(graph, "loihi2", pack=False)
    assert {name: len(report.cores_of(name)) for name in graph.populations} == expected
    assert report.cores == 74
    assert report.fits
    assert report.partition.cut_by["dense0"] == "synapse_words"
    assert report.partition.cut_by["conv0"] == "neurons"


@pytest.mark.parametrize(("weights", "words"), [(1, 1), (9, 3), (10, 3), (17, 5), (50, 13)])
def test_an_axon_takes_the_memory_that_the_compiler_printed(weights, words):
    assert CHIPS["loihi2"].axon_words(weights, 4000) == words


def test_the_block_model_of_loihi_1_by_hand():
    """100 synapses, 1,024 neurons: 100 x (8 + 10) + 2 x 10 bits = 1,820, in words of 64: 29."""
    chip = CHIPS["loihi1"]
    assert chip.axon_words(100, 1024) == 29
    assert chip.axon_words(1, 20) == 1  # 8 + 5 + 10 bits
    assert chip.synapse_words * 64 == 1_048_576


# ---- what must always hold


def graphs():
    yield "digits", lower(settled_model(tiny_config(top_k=2)))
    stages = tiny_config(early_depths=(1,), image_size=12, local_mixing="conv", shared_experts=1)
    yield "stages", lower(settled_model(stages))
    yield "unrolled", lower(settled_model(tiny_config()), residual="unrolled")


def small(chip, **limits):
    """A chip with so little room that everything must be cut."""
    return replace(CHIPS[chip], **limits)


TIGHT = {
    "loihi1": {"neurons": 24, "in_axons": 300, "out_axons": 260, "synapse_words": 300},
    "loihi2": {"neurons": 30, "in_axons": 300, "synapse_words": 300},
}


@pytest.mark.parametrize("name", list(CHIPS))
@pytest.mark.parametrize("pack", [True, False])
def test_every_neuron_is_in_one_core_and_no_limit_is_exceeded(name, pack):
    chip = small(name, **TIGHT[name])
    for label, graph in graphs():
        cut = partition(graph, chip, pack=pack)
        assert not cut.too_large, label
        held = sorted(b for core in cut.cores for b in core.blocks)
        assert held == list(range(len(cut.blocks))), label
        for population in graph.populations.values():
            seen = np.zeros(population.shape, dtype=int)
            for block in cut.blocks:
                if block.population == population.name:
                    seen[block.slices] += 1
            assert (seen == 1).all(), (label, population.name)
        assert all(core.demand.fits(chip) for core in cut.cores), label
        assert len(cut.cores) > 10, label


@pytest.mark.parametrize("name", list(CHIPS))
def test_axons_and_memory_against_a_count_neuron_by_neuron(name):
    """Incoming axons of a core: source neurons that reach it, taken from the matrices."""
    chip = small(name, **TIGHT[name])
    for label, graph in graphs():
        cut = partition(graph, chip, pack=False)
        for block, demand in zip(cut.blocks, cut.demands, strict=True):
            size = np.prod(graph.populations[block.population].shape)
            inside = np.arange(size).reshape(graph.populations[block.population].shape)
            rows = inside[block.slices].ravel()
            axons = 0
            for synapse in graph.incoming(block.population):
                reached = np.unique(graph.matrix(synapse)[rows].indices)
                if isinstance(synapse, Conv2d) and not chip.discrete_axons:
                    senders = cut.grids[synapse.source].block_of_neurons()[reached]
                    axons += len(np.unique(senders))
                else:
                    axons += len(reached)
            assert demand.neurons == len(rows)
            assert axons <= demand.in_axons <= max(4, 1.8 * axons), (label, block)


def test_traffic_is_what_the_spikes_cause():
    """Messages between cores, spike by spike: each goes once per synapse to each core it reaches."""
    config = tiny_config(local_mixing="conv")
    graph = lower(settled_model(config))
    trace = simulate(graph, tiny_images(config, 3))
    report = map_graph(graph, "loihi2", trace=trace, pack=False)
    cut, total = report.partition, 0.0
    for synapse in graph.synapses:
        spikes = trace.spikes[synapse.source].reshape(3 * graph.time_steps, -1) != 0
        matrix = graph.matrix(synapse).tocoo()
        blocks = cut.grids[synapse.target].block_of_neurons()
        reach = set(zip(matrix.col, blocks[matrix.row], strict=True))
        total += sum(spikes[:, column].sum() for column, _ in reach)
    # boxes are convex hulls: with strides a box may hold a position that no tap reads
    assert total / 3 <= report.traffic.sum() <= 1.1 * total / 3
    assert report.measured


def test_without_a_trace_neurons_send_at_the_rate():
    graph = lower(settled_model(tiny_config()))
    sent = messages_sent(graph, None, 0.25)
    steps = graph.time_steps
    assert (sent["blocks.0.moe.x"] == steps * 0.25).all()
    assert (sent["input"] == steps).all()


# ---- placement


def test_placing_is_better_than_chance_and_row_by_row():
    graph = lower(settled_model(tiny_config(top_k=2)))
    chip = small("loihi2", neurons=20)
    cut = partition(graph, chip, pack=False)
    assert 40 < len(cut.cores) <= 128
    generator = np.random.default_rng(0)
    traffic = generator.random((60, 60)) * (generator.random((60, 60)) < 0.05)
    mesh = build_mesh(CHIPS["loihi2"], 60)
    placed = place(mesh, traffic)
    plain = evaluate(mesh, np.arange(60), traffic)
    assert placed.hops < 0.7 * plain.hops
    assert len(np.unique(placed.slot)) == 60
    assert np.array_equal(place(mesh, traffic).slot, placed.slot), "deterministic"


def test_hops_by_hand():
    """4 cores per tile, 8 tiles in a row: slots 0 and 4 are one tile apart, 0 and 32 one row."""
    mesh = build_mesh(CHIPS["loihi2"], 130)
    assert mesh.chips == 2
    slots = np.array([0, 1, 4, 32, 128])
    traffic = np.zeros((5, 5))
    traffic[0] = [9, 1, 10, 100, 1000]
    # the second chip stands beside the first: its first tile is 8 columns away
    assert evaluate(mesh, slots, traffic).hops == 0 + 0 + 10 + 100 + 8000
    assert evaluate(mesh, slots, traffic).between_chips == 1000


def test_two_cores_that_talk_end_up_together():
    traffic = np.zeros((20, 20))
    traffic[0, 19] = 5.0
    mesh = build_mesh(CHIPS["loihi2"], 20)
    assert place(mesh, traffic).hops == 0


# ---- what the report says


def test_the_report_is_json_and_names_its_sources():
    graph = lower(settled_model(tiny_config()))
    values = json.loads(json.dumps(map_graph(graph, "loihi2").as_dict()))
    assert values["grade"] == "estimate"
    assert values["fits"]
    assert all(len(limit["source"]) > 10 for limit in values["limits"].values())
    assert {p["name"] for p in values["populations"]} == set(graph.populations)
    assert (
        values["traffic"]["hops_per_sample"]["placed"]
        <= (values["traffic"]["hops_per_sample"]["row_major"])
    )


def test_graded_messages_are_refused_by_loihi_1():
    relays = map_graph(lower(settled_model(tiny_config())), "loihi1")
    assert not relays.fits
    assert "send numbers" in relays.problems[0]
    assert "unrolled" in relays.problems[0]


def test_what_cannot_be_cut_is_said():
    """One neuron with 17,000 inputs: more memory than a core has."""
    graph = SpikeGraph(
        populations={
            "input": Input(name="input", shape=(17_000,), kind="binary"),
            "out": Readout(name="out", shape=(2,)),
        },
        synapses=(Dense(source="input", target="out", weight=np.ones((2, 17_000))),),
        time_steps=2,
    )
    report = map_graph(graph, "loihi2")
    assert report.partition.too_large == {"out": "synapse_words"}
    assert "population 'out': even its smallest part" in report.problems[0]
    assert report.advice[0]


def test_long_delays_are_said():
    n = 4
    graph = SpikeGraph(
        populations={
            "input": Input(name="input", shape=(n,), kind="binary"),
            "out": Readout(name="out", shape=(n,)),
        },
        synapses=(replace(one_to_one("input", "out", n), delay=70),),
        time_steps=2,
    )
    (problem,) = map_graph(graph, "loihi2").problems
    assert "a delay of 70" in problem


def test_more_than_one_chip_says_what_to_change():
    graph = SpikeGraph(
        populations={
            "input": Input(name="input", shape=(64, 64, 3)),
            "big": LIF(name="big", shape=(64, 64, 120)),
            "out": Readout(name="out", shape=(1,)),
        },
        synapses=(
            Conv2d(source="input", target="big", weight=np.ones((120, 3, 1, 1))),
            Dense(source="big", target="out", weight=np.ones((1, 64 * 64 * 120))),
        ),
        time_steps=2,
    )
    report = map_graph(graph, "loihi2")
    assert report.mesh.chips == 2
    assert not report.fits
    assert report.binding == "neurons"
    assert any("big takes about" in line for line in report.advice)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chip": "loihi3"}, "chip 'loihi3' is unknown; use one of loihi1, loihi2"),
        ({"rate": 1.5}, "rate=1.5; use a number"),
        ({"rate": float("nan")}, "rate=nan; use a number"),
    ],
)
def test_bad_requests_are_refused(options, message):
    with pytest.raises(MappingError, match=message):
        map_graph(lower(settled_model(tiny_config())), **options)


def test_a_trace_of_another_graph_is_refused():
    config = tiny_config()
    one, other = lower(settled_model(config)), lower(settled_model(config, 1))
    trace = simulate(one, tiny_images(config, 1))
    with pytest.raises(MappingError, match="another graph"):
        map_graph(other, trace=trace)


def test_blocks_of_neurons_are_those_of_the_slices():
    grid = Grid("a", (5, 4, 7), (2, 4, 3))
    number = grid.block_of_neurons().reshape(5, 4, 7)
    for index, block in enumerate(grid):
        assert (number[block.slices] == index).all()
    assert len(grid) == 3 * 1 * 3
