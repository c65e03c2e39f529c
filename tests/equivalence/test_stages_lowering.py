"""Networks of several stages: torch, the reference, the stream oracle and Lava are one network."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import settled_model, tiny_config, tiny_images
from torch import nn

from hardware.errors import LoweringError
from hardware.ir import LIF, Input, run_reference
from hardware.ir.stream import run_stream
from hardware.lowering import lower, record_torch
from hardware.lowering.apply import apply_layer
from hardware.lowering.builder import Builder, Spikes, Stream
from hardware.lowering.rules import BUILT_IN
from hardware.passes import quantise, register_delays
from hardware.simulate import simulate, to_inputs
from hardware.verify import compare_traces

TWO = tiny_config(early_depths=(1,), depth=1, image_size=6, stem_strides=(2, 1), input_channels=3)
CASES = {
    "two stages": TWO,
    "odd sides": replace(TWO, image_size=9, prompt_grid=3),
    "three stages": tiny_config(
        early_depths=(1, 1), num_heads=4, image_size=12, expert_width=8, num_experts=4
    ),
    "dense": tiny_config(early_depths=(2,), routing="dense", num_experts=1, input_channels=2),
    "a stage of one block in two": replace(TWO, early_depths=(2,), mixture_every=3, top_k=2),
}


@pytest.mark.parametrize("residual", ["relay", "unrolled"])
@pytest.mark.parametrize("name", CASES)
def test_torch_and_reference_agree_spike_for_spike(name, residual):
    config = CASES[name]
    model = settled_model(config)
    images = tiny_images(config, 8)
    graph = lower(model, residual=residual)
    ours, torch64 = simulate(graph, images), record_torch(model, images, residual=residual)
    lifs = {p.name for p in graph.of_kind(LIF)}
    assert lifs <= set(torch64.spikes)
    assert {f"downsamples.{i}.x" for i in range(len(config.early_depths))} <= lifs
    comparison = compare_traces(graph, torch64, ours)
    assert comparison.same, comparison.first
    assert np.abs(torch64.logits - ours.logits).max() < 1e-9  # float64, sums in another order
    for lif in lifs:
        assert ours.spikes[lif].any() or "experts" in lif, f"{lif} never spikes: nothing was shown"


@pytest.mark.parametrize("name", ["two stages", "three stages"])
def test_both_residuals_are_one_integer_network_and_run_in_time(name):
    config = CASES[name]
    model = settled_model(config)
    images = tiny_images(config, 3)
    fixed = [quantise(lower(model, residual=form)) for form in ("relay", "unrolled")]
    inputs = to_inputs(fixed[0], images)
    traces = [run_reference(graph, inputs) for graph in fixed]
    common = [n for n in traces[0].spikes if n in traces[1].spikes]
    assert {p.name for p in fixed[0].of_kind(LIF)} <= set(common)
    for population in common:
        assert np.array_equal(*(t.spikes[population] for t in traces)), population
    assert np.array_equal(traces[0].logits, traces[1].logits)
    streamed = run_stream(register_delays(fixed[0]), inputs)
    for population in traces[0].spikes:
        assert np.array_equal(traces[0].spikes[population], streamed.spikes[population]), population
    assert np.array_equal(traces[0].logits, streamed.logits)


def test_the_integer_network_stays_close_to_the_real_one():
    config = CASES["two stages"]
    graph = lower(settled_model(config))
    images = tiny_images(config, 40)
    real, fixed = simulate(graph, images), simulate(quantise(graph), images)
    x = "downsamples.0.x"
    assert (real.spikes[x] != fixed.spikes[x]).mean() < 0.05
    assert (real.predictions == fixed.predictions).mean() > 0.7


@pytest.mark.lava
def test_lava_runs_two_stages_as_the_reference_does():
    config = replace(TWO, time_steps=2)
    graph = quantise(lower(settled_model(config)))
    images = tiny_images(config, 3)
    ours = simulate(graph, images)
    lava = simulate(graph, images, backend="lava", time_limit=250)
    comparison = compare_traces(graph, ours, lava)
    assert comparison.same, comparison.first
    assert ours.spikes["downsamples.0.x"].any()


# ---- the rules by themselves


def builder_with_stream(config, unrolled=False):
    builder, model = new_builder(config, unrolled), settled_model(config)
    return builder, model, apply_layer(builder, model.stem, "stem", Spikes("input"))


def new_builder(config, unrolled=False):
    builder = Builder(time_steps=config.time_steps, unrolled=unrolled, rules=BUILT_IN)
    builder.add(Input(name="input", shape=(config.image_size, config.image_size, 1)))
    return builder


def test_a_new_stream_starts_from_the_convolution_alone():
    for unrolled in (False, True):
        builder, model, stream = builder_with_stream(TWO, unrolled)
        after = apply_layer(builder, model.downsamples[0], "downsamples.0", stream)
        assert after.shape == (2, 2, 8)
        assert after.group == "downsamples.0.stream" != stream.group
        (term,) = after.terms
        synapse = term("reader")
        assert synapse.source == ("downsamples.0.x" if unrolled else "stream.1")
        norm = model.downsamples[0].conv.norm
        shift = norm.bias - norm.running_mean * norm.weight / (norm.running_var + norm.eps).sqrt()
        assert after.bias == pytest.approx(shift.detach().numpy(), abs=1e-6)


@pytest.mark.parametrize(
    ("path", "module", "named"),
    [
        ("downsamples.0", nn.Identity(), "downsamples.0"),
        ("downsamples.0.conv", nn.Conv2d(4, 8, 3), "downsamples.0.conv"),
        ("downsamples.0.neuron", nn.ReLU(), "downsamples.0.neuron"),
        ("stem.convs.1", nn.Identity(), "stem.convs.1"),
        ("stem", nn.Identity(), "stem"),
    ],
)
def test_replaced_modules_are_refused_by_name(path, module, named):
    model = settled_model(TWO)
    model.set_submodule(path, module)
    with pytest.raises(LoweringError) as caught:
        lower(model)
    assert caught.value.module == named
    builder = new_builder(TWO)
    layer, arriving = {
        "stem": ("stem", Spikes("input")),
        "downsamples": ("downsamples.0", Stream(shape=(3, 3, 4), bias=np.zeros(4))),
    }[path.partition(".")[0]]
    with pytest.raises(LoweringError, match=f"cannot lower '{named}': "):
        apply_layer(builder, model.get_submodule(layer), layer, arriving)


def test_the_presets_colour_and_events_lower_on_a_smaller_map():
    """Channels, stages, experts and routing of cifar-base and events-tiny, narrow and small."""
    from spikingmoe.config import PRESETS

    for name in ("cifar-base", "events-tiny"):
        preset = PRESETS[name]
        shrink = {
            "image_size": 8,
            "stem_channels": tuple(4 for _ in preset.stem_channels),
            "embed_dim": 16,
            "num_heads": 4,
            "expert_width": 8,
            "prompt_width": 4,
            "time_steps": 2,
        }
        config = replace(preset, **shrink)
        model = settled_model(config)
        images = tiny_images(config, 3)
        graph = lower(model)
        comparison = compare_traces(graph, record_torch(model, images), simulate(graph, images))
        assert comparison.same, (name, comparison.first)
        quantise(graph)
        assert torch.isfinite(model(images).logits).all()
