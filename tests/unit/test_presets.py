"""Presets build and have the size they claim; estimated operations are those of the lowered graph."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import settled_model, tiny_config, tiny_images

from hardware.energy import Operation, count_operations
from hardware.energy.parts import part_of
from hardware.ir.nodes import LIF, Input, Relay
from hardware.lowering import lower
from hardware.simulate import simulate
from hardware.trace import SpikeTrace
from spikingmoe.cli.main import main
from spikingmoe.config import PRESETS, dense_twin, get_preset
from spikingmoe.config.presets import MADE_FOR
from spikingmoe.model import SpikingTransformer, create_model
from spikingmoe.sizes import (
    Sender,
    connections,
    conv_taps,
    count_parameters,
    estimate_synops,
)

#: Total parameters for 10 classes (1,000 for ImageNet): what the issue and the README speak of.
CLAIMED = {
    "digits": (50_000, 60_000),
    "cifar-tiny": (450_000, 550_000),
    "cifar-small": (1_200_000, 1_500_000),
    "cifar-base": (8_000_000, 10_000_000),
    "events-tiny": (450_000, 550_000),
    "events-small": (1_200_000, 1_500_000),
    "imagenet-small": (15_000_000, 25_000_000),
    "imagenet-base": (60_000_000, 80_000_000),
}


def on_meta(config):
    with torch.device("meta"):
        return SpikingTransformer(config)


# ---- what a preset is


def test_every_preset_is_listed_and_carries_its_name():
    assert list(PRESETS) == list(CLAIMED) == list(MADE_FOR)
    assert all(config.preset == name for name, config in PRESETS.items())


@pytest.mark.parametrize("name", CLAIMED)
@pytest.mark.parametrize("classes", [None, 100])
def test_presets_have_the_size_they_claim(name, classes):
    config = get_preset(name) if classes is None else replace(PRESETS[name], num_classes=classes)
    low, high = CLAIMED[name]
    assert low <= count_parameters(config).total <= high
    model = on_meta(config)
    assert all(p.is_meta for p in model.parameters()), "nothing is allocated"
    assert model.head.weight.shape == (config.num_classes, config.embed_dim)


@pytest.mark.parametrize("name", CLAIMED)
def test_presets_are_made_to_be_lowered(name):
    """Every option is one that has a rule, colour and events have opponent cells."""
    config = PRESETS[name]
    assert config.attention == "qk"
    assert config.routing == "top_k"
    assert config.prompt == "learned"
    assert config.input_channels in (1, 2, 3)
    assert len(config.stem_strides) >= 3 or name == "digits", "never a single patch convolution"
    assert config.embed_dim % config.num_heads == 0


def test_stages_are_those_of_the_design():
    base = get_preset("cifar-base")
    stages = [base.stage(i) for i in range(3)]
    assert [s.embed_dim for s in stages] == [96, 192, 384]
    assert base.stage_depths == (1, 1, 2)
    assert (base.stem_side, base.tokens_per_side) == (32, 8)
    assert get_preset("cifar-tiny").tokens_per_side == 8
    assert get_preset("imagenet-small").stem_side == 56


@pytest.mark.parametrize("name", ["digits", "cifar-tiny"])
def test_parameters_are_counted_as_the_real_model_has_them(name):
    model = create_model(name)
    parameters = count_parameters(model.config)
    assert parameters.total == sum(p.numel() for p in model.parameters())
    experts = [block.moe.experts for block in model.blocks]
    of_one = sum(
        p[0].numel() for e in experts for p in (e.weight1, e.weight2, *e.norm1.parameters())
    ) + sum(p[0].numel() for e in experts for p in e.norm2.parameters())
    c = model.config
    assert parameters.active == parameters.total - (c.num_experts - c.top_k) * of_one


def test_active_parameters_by_hand():
    one = tiny_config(num_experts=4, top_k=1)
    # W1 and W2 of 8x6, and scale and shift of both norms
    expert = 2 * 8 * 6 + 2 * 6 + 2 * 8
    counted = count_parameters(one)
    assert counted.total - counted.active == 3 * expert
    more = count_parameters(replace(one, top_k=3))
    assert more.total == counted.total
    assert more.total - more.active == expert
    deep = count_parameters(replace(one, depth=3, mixture_every=3))
    assert deep.total - deep.active == 3 * expert, "dense blocks are always used"
    dense = count_parameters(dense_twin(one))
    assert dense.active == dense.total


# ---- synaptic operations


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("size", [1, 2, 5, 8])
def test_taps_of_a_convolution_are_those_within_the_map(size, kernel, stride):
    ones = torch.ones(1, 1, size)
    conv = torch.nn.functional.conv1d(
        ones, torch.ones(1, 1, kernel), stride=stride, padding=kernel // 2
    )
    assert conv_taps(size, kernel, stride) == int(conv.sum())


def sender(graph, name):
    """What a population of a lowered graph is to the estimate."""
    population = graph.populations[name]
    if isinstance(population, Relay):
        return Sender.RELAY
    if isinstance(population, Input):
        return Sender.CONSTANT if population.kind == "constant" else Sender.IMAGE
    kinds = {"gate": Sender.GATE, "compare": Sender.COMPARATOR}
    behind = Sender.CHOSEN if ".experts." in name else Sender.NEURON
    return kinds.get(name.rpartition(".")[2], behind)


def synapses_of(graph):
    """Stored connections by (part, sender)."""
    found = Counter()
    for synapse in graph.synapses:
        part = "experts" if synapse.expert else part_of(synapse.target)
        found[part, sender(graph, synapse.source)] += graph.matrix(synapse).nnz
    return dict(found)


COUNTED = {
    "digits": PRESETS["digits"],
    "colour": tiny_config(input_channels=3, top_k=2),
    "events": tiny_config(input_channels=2),
    "sparse relay cells": tiny_config(input_channels=3, relay_stride=2, prompt_grid=3),
    "stages": tiny_config(early_depths=(1, 2), image_size=12, num_heads=4, expert_width=8),
    "odd sides": tiny_config(early_depths=(1,), image_size=9, prompt_grid=3, stem_strides=(2, 1)),
    "shared": tiny_config(shared_experts=2),
    "alternating": tiny_config(depth=3, mixture_every=2, mlp_width=10),
    "no prompt": tiny_config(prompt="none"),
    "convolutions": tiny_config(local_mixing="conv", early_depths=(1,), image_size=12),
    "depthwise": tiny_config(local_mixing="dwconv"),
    "no attention": tiny_config(attention="none"),
    "dense": dense_twin(tiny_config(), mlp_width=14),
}


@pytest.mark.parametrize("name", COUNTED)
def test_connections_are_those_of_the_lowered_graph(name):
    """Part by part and sender by sender, exactly."""
    config = COUNTED[name]
    counted = {key: count for key, count in connections(config).items() if count}
    assert counted == synapses_of(lower(settled_model(config)))


def steady_trace(graph, config, every):
    """Every neuron spikes at each `every`-th step, the first K experts are chosen at each step."""
    spikes = {}
    steps = np.arange(config.time_steps) % every == 0
    for name, population in graph.populations.items():
        shape = (2, graph.time_steps, *population.shape)
        kind = sender(graph, name)
        values = np.ones(shape, dtype=bool)
        if isinstance(population, LIF) and kind in (Sender.NEURON, Sender.CHOSEN):
            values[:, ~steps] = False
        if kind is Sender.CHOSEN:
            expert = int(name.partition(".experts.")[2].partition(".")[0])
            values &= expert < config.top_k
        elif kind is Sender.GATE:
            values[...] = np.arange(population.shape[-1]) < config.top_k
        elif kind is Sender.COMPARATOR:  # the pair (e, j) in order of e: j beats e if j < e
            experts = range(config.num_experts)
            values[...] = [j < e for e in experts for j in experts if j != e]
        spikes[name] = values if isinstance(population, LIF) else values.astype(float)
    meta = {"fingerprint": graph.fingerprint}
    return SpikeTrace(spikes=spikes, logits=np.zeros((2, config.num_classes)), meta=meta)


@pytest.mark.parametrize("name", ["digits", "colour", "stages", "shared", "dense", "convolutions"])
@pytest.mark.parametrize("every", [1, 2, 4])
def test_the_estimate_is_what_the_energy_model_counts_at_that_rate(name, every):
    """A trace in which every neuron fires at exactly the assumed rate."""
    config = replace(COUNTED[name], time_steps=4)
    graph = lower(settled_model(config))
    counted = count_operations(graph, steady_trace(graph, config, every)).per_sample
    estimate = estimate_synops(config, 1 / every)
    assert counted[Operation.ACCUMULATE] == pytest.approx(estimate.synops, rel=1e-12)
    macs = estimate.first_layer_macs + estimate.relay_macs
    assert counted[Operation.MULTIPLY_ACCUMULATE] == pytest.approx(macs, rel=1e-12)


def test_the_estimate_comes_near_a_real_network_at_its_mean_rate():
    """Real rates differ between layers: at their mean the estimate is right within a third."""
    config = PRESETS["digits"]
    graph = lower(settled_model(config))
    trace = simulate(graph, tiny_images(config, 20))
    neurons = [n for n in trace.spikes if sender(graph, n) is Sender.NEURON]
    rate = float(np.mean(np.concatenate([trace.spikes[n].ravel() for n in neurons])))
    counted = count_operations(graph, trace).per_sample[Operation.ACCUMULATE]
    assert estimate_synops(config, rate).synops == pytest.approx(counted, rel=1 / 3)


def test_what_is_not_known_is_refused():
    config = PRESETS["digits"]
    for rate in (-0.1, 1.1, float("nan")):
        with pytest.raises(
            ValueError, match=r"use a number of spikes per neuron and step in 0\.\.1"
        ):
            estimate_synops(config, rate)
    for wrong in (
        {"routing": "threshold"},
        {"hold": "window"},
        {"attention": "sdsa"},
        {"route_by": "image"},
        {"cortical_feedback": True},
    ):
        ((name, value),) = wrong.items()
        with pytest.raises(ValueError, match=f"estimated for {name} .*, not {value!r}; train it"):
            connections(replace(config, **wrong))


# ---- the command


def test_the_command_prints_every_preset(capsys):
    assert main(["presets"]) == 0
    out = capsys.readouterr().out
    assert "estimates at 0.15 spikes per neuron and step" in out
    for name in PRESETS:
        assert name in out
    assert "9.68" in out


def test_the_command_prints_json(capsys):
    assert main(["presets", "--json", "--classes=100", "--rate=0.5"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["kind"] == "estimate"
    assert printed["rate"] == 0.5
    assert list(printed["presets"]) == list(PRESETS)
    row, config = printed["presets"]["cifar-base"], replace(PRESETS["cifar-base"], num_classes=100)
    assert row["classes"] == 100
    assert row["input"] == [3, 32, 32]
    assert row["blocks"] == [1, 1, 2]
    assert (row["experts"], row["top_k"]) == (8, 2)
    assert row["parameters"] == count_parameters(config).total
    assert row["active_parameters"] == count_parameters(config).active
    assert row["estimated_synops"] == estimate_synops(config, 0.5).synops


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--classes=1", "num_classes=1 must be at least 2"),
        ("--rate=2", "rate=2.0; use a number"),
        ("--rte=1", "unknown option --rte; did you mean --rate"),
    ],
)
def test_bad_options_are_refused_in_one_line(capsys, option, message):
    assert main(["presets", option]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
