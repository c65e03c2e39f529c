"""A readout of sums over tokens: the same logits a step later, in a part of the synapse memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import settled_model, tiny_config, tiny_images

from hardware.errors import GraphError
from hardware.ir import LIF, Dense, Input, Readout, Relay, SpikeGraph, run_reference
from hardware.loihi.chips import CHIPS
from hardware.loihi.mapping import find_problems
from hardware.loihi.partition import partition
from hardware.lowering import lower
from hardware.lowering.from_torch import Residual
from hardware.lowering.integer import run_torch_batches
from hardware.passes.pool_tokens import pool_tokens
from hardware.passes.quantise import quantise
from hardware.simulate import simulate, to_inputs

POOL = "head.readout.pool"
FORMS = pytest.mark.parametrize("residual", ["relay", "unrolled"])


def counted(fixed: bool = False) -> SpikeGraph:
    """Two tokens of two channels, which spike as the input does, and one class: 3 a + 5 b."""
    one = np.eye(4, dtype=int) * 2 if fixed else np.eye(4)
    weight = np.array([[3, 5, 3, 5]]) * (2 if fixed else 1.0)
    threshold, bias = (np.asarray(1), np.asarray(0)) if fixed else (np.asarray(0.5), np.zeros(()))
    populations = [
        Input(name="x", shape=(4,), kind="binary"),
        LIF(name="n", shape=(2, 1, 2), threshold=threshold, bias=bias),
        Readout(name="out", shape=(1,), bias=bias),
    ]
    synapses = (
        Dense(source="x", target="n", weight=one),
        Dense(source="n", target="out", weight=weight),
    )
    return SpikeGraph(
        populations={p.name: p for p in populations},
        synapses=synapses,
        time_steps=1,
        arithmetic="fixed" if fixed else "float",
    )


@pytest.mark.parametrize("fixed", [False, True])
def test_worked(fixed: bool) -> None:
    graph = counted(fixed)
    pooled = pool_tokens(graph)
    assert isinstance(pooled.populations["out.pool"], Relay)
    inputs = np.array([[1, 0, 1, 0], [0, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]], float)[:, None]
    result = run_reference(pooled, inputs)
    sums = np.array([[2, 0], [0, 1], [2, 2], [0, 0]])
    assert np.array_equal(result.spikes["out.pool"][:, 0], sums)
    assert np.array_equal(result.logits, run_reference(graph, inputs).logits)
    logits = np.array([[6], [5], [16], [0]]) * (2 if fixed else 1)
    assert np.array_equal(result.logits, logits)


@FORMS
def test_fixed_point_logits_are_equal_on_every_backend(residual: Residual) -> None:
    model = settled_model(tiny_config())
    images = tiny_images(model.config, 4)
    plain = quantise(lower(model, residual=residual))
    pooled = pool_tokens(plain)
    assert pooled.depth["head.readout"] == plain.depth["head.readout"] + 1
    expected, got = simulate(plain, images), simulate(pooled, images)
    assert np.array_equal(expected.logits, got.logits)
    assert len(np.unique(got.spikes[POOL])) > 3
    for name, spikes in expected.spikes.items():
        assert np.array_equal(spikes, got.spikes[name]), name
    (by_torch,) = run_torch_batches(pooled, [to_inputs(pooled, images)])
    assert np.array_equal(by_torch.logits, got.logits)
    assert np.array_equal(by_torch.spikes[POOL], got.spikes[POOL])


@pytest.mark.lava
@pytest.mark.parametrize("backend", ["lava", "lava-stock"])
@pytest.mark.parametrize("fixed", [False, True])
def test_lava_sends_the_same_counts(backend: str, fixed: bool) -> None:
    model = settled_model(tiny_config(attention="none", num_experts=2, embed_dim=4, time_steps=2))
    images = tiny_images(model.config, 2)
    graph = lower(model)
    pooled = pool_tokens(quantise(graph) if fixed else graph)
    expected, got = simulate(pooled, images), simulate(pooled, images, backend=backend)
    assert expected.spikes[POOL].any()
    assert np.array_equal(expected.spikes[POOL], got.spikes[POOL])
    assert np.allclose(expected.logits, got.logits, rtol=0, atol=0 if fixed else 1e-9)


@pytest.mark.parametrize("weight_bits", [8, 4])
@FORMS
def test_pooling_before_or_after_quantising_is_one_program(
    residual: Residual, weight_bits: int
) -> None:
    graph = lower(settled_model(tiny_config(embed_dim=16)), residual=residual)
    before = quantise(pool_tokens(graph), weight_bits=weight_bits)
    after = pool_tokens(quantise(graph, weight_bits=weight_bits))
    assert list(before.populations) == list(after.populations)
    for one, other in zip(before.synapses, after.synapses, strict=True):
        assert (one.source, one.target, one.exponent) == (
            other.source,
            other.target,
            other.exponent,
        )
        assert np.array_equal(one.weight, other.weight)
    for name, population in before.populations.items():
        assert population.scale == pytest.approx(after.populations[name].scale, rel=1e-15)


def test_two_maps_onto_one_readout_are_pooled_apart() -> None:
    graph = counted()
    other = LIF(name="m", shape=(4, 1, 1), threshold=np.asarray(0.5))
    more = (
        Dense(source="x", target="m", weight=np.eye(4)),
        Dense(source="m", target="out", weight=np.full((1, 4), 7.0)),
    )
    both = graph.with_(
        populations=[*graph.populations.values(), other], synapses=[*graph.synapses, *more]
    )
    pooled = pool_tokens(both)
    assert pooled.populations["out.pool"].shape == (2,)
    assert pooled.populations["out.pool1"].shape == (1,)
    inputs = np.array([[1, 0, 1, 0], [1, 1, 1, 1]], float)[:, None]
    logits = run_reference(pooled, inputs).logits
    assert logits.tolist() == [[20], [44]]  # 3 a + 5 b + 7 (a + b)
    assert np.array_equal(logits, run_reference(both, inputs).logits)


def test_floating_logits_differ_by_rounding_alone() -> None:
    model = settled_model(tiny_config())
    images = tiny_images(model.config, 8)
    graph = lower(model)
    expected, got = simulate(graph, images), simulate(pool_tokens(graph), images)
    with torch.no_grad():
        logits = model.double()(images.double()).logits.numpy()
    assert np.abs(expected.logits - got.logits).max() < 1e-12
    assert np.abs(logits - got.logits).max() < 1e-9


def test_what_no_core_holds_fits_then_and_mapping_says_so() -> None:
    graph = quantise(lower(settled_model(tiny_config(prompt="none"))))
    tokens_and_channels = int(np.prod(graph.populations["head.x"].shape))
    chip = replace(CHIPS["loihi2"], synapse_words=tokens_and_channels - 1)
    problems = find_problems(graph, chip, partition(graph, chip))
    assert problems == [
        "population 'head.readout': even its smallest part exceeds a core's synapse memory: lower with "
        "--head pooled"
    ]
    pooled = pool_tokens(graph)
    assert find_problems(pooled, chip, partition(pooled, chip)) == []


@pytest.mark.parametrize(
    ("pool", "words"), [(True, "unrolled --head direct;"), (False, "unrolled;")]
)
def test_a_chip_of_binary_spikes_names_the_pooled_head(pool: bool, words: str) -> None:
    graph = quantise(lower(settled_model(tiny_config())))
    graph, chip = pool_tokens(graph) if pool else graph, CHIPS["loihi1"]
    (problem,) = find_problems(graph, chip, partition(graph, chip))
    assert f"lower with --residual {words}" in problem


def test_weights_that_differ_by_token_are_refused() -> None:
    graph = counted()
    own = [
        replace(s, weight=s.weight + np.arange(4)) if s.target == "out" else s
        for s in graph.synapses
    ]
    refused = pytest.raises(GraphError, match="no readout weighs the tokens of a map")
    with refused:
        pool_tokens(graph.with_(synapses=own))
    with refused:
        pool_tokens(pool_tokens(graph))
