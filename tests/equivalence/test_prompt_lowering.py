"""Every lowerable prompt: torch in float64, the reference, the stream of steps and Lava agree."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from graphs import assert_same
from tiny_models import settled_model, tiny_config, tiny_images

from hardware.energy.parts import part_of
from hardware.errors import LoweringError
from hardware.ir import LIF, run_reference
from hardware.ir.stream import run_stream
from hardware.lowering import lower, record_torch
from hardware.lowering.builder import Builder
from hardware.lowering.prompt import lower_feedback_prompt, lower_prompt, lower_relay
from hardware.passes import quantise, register_delays
from hardware.simulate import simulate, to_inputs
from hardware.verify import compare_traces
from spikingmoe.layers.prompt import FeedbackPrompt, RelayPool, SDPrompt

RESIDUALS = pytest.mark.parametrize("residual", ["relay", "unrolled"])
FEEDBACK = tiny_config(depth=3, cortical_feedback=True)
CONFIGS = {
    "learned": tiny_config(depth=2),
    "random": tiny_config(depth=2, prompt="random"),
    "none": tiny_config(depth=2, prompt="none"),
    "colour": tiny_config(input_channels=3, prompt_grid=3),
    "sparse relay cells": tiny_config(input_channels=3, relay_stride=2, prompt_grid=3),
    "feedback of sparse cells": tiny_config(depth=2, relay_stride=3, cortical_feedback=True),
    "feedback": FEEDBACK,
    "feedback, dense blocks between": tiny_config(
        depth=4, cortical_feedback=True, mixture_every=2, prompt_grid=1
    ),
    "feedback over stages": tiny_config(
        early_depths=(1,), depth=2, cortical_feedback=True, image_size=8, stem_strides=(2, 1)
    ),
}


def prompts(graph):
    """The populations that send prompts."""
    return [name for name in graph.populations if name.endswith("prompt.lif")]


@RESIDUALS
@pytest.mark.parametrize("name", CONFIGS)
def test_torch_and_reference_agree_spike_for_spike(name, residual):
    model = settled_model(CONFIGS[name])
    images = tiny_images(CONFIGS[name], 8)
    graph = lower(model, residual=residual)
    ours = run_reference(graph, to_inputs(graph, images))
    comparison = compare_traces(graph, record_torch(model, images, residual=residual), ours)
    assert comparison.same, comparison.first
    populations = [p.name for p in graph.of_kind(LIF) if "prompt" in p.name]
    assert set(populations) <= set(comparison.by_population)
    assert all(part_of(p) == "prompt" for p in populations)
    for population in populations:  # equality of silent cells would show nothing
        assert 0 < ours.firing_rate(population) < 1, population


def test_who_has_which_prompt():
    assert prompts(lower(settled_model(CONFIGS["random"]))) == ["prompt.lif"]
    assert not any("prompt" in p for p in lower(settled_model(CONFIGS["none"])).populations)
    graph = lower(settled_model(FEEDBACK))
    assert prompts(graph) == [f"blocks.{i}.prompt.lif" for i in range(3)]
    sources = [{s.source for s in graph.incoming(name)} for name in prompts(graph)]
    assert sources == [
        {"prompt.relay"},
        {"prompt.relay", "blocks.0.moe.x"},
        {"prompt.relay", "blocks.1.moe.x"},
    ]
    between = lower(settled_model(CONFIGS["feedback, dense blocks between"]))
    sources = [{s.source for s in between.incoming(name)} for name in prompts(between)]
    assert sources == [{"prompt.relay", f"blocks.{i}.mlp.x"} for i in (0, 2)]


def test_feedback_changes_its_block_and_nothing_before_it():
    """Silence F_1: the prompt of block 1 changes, what came before does not."""
    model, images = settled_model(FEEDBACK), tiny_images(FEEDBACK, 8)
    before = record_torch(model, images)
    torch.nn.init.zeros_(model.blocks[1].prompt.feedback.linear.weight)
    after = record_torch(model, images)
    changed = {n for n in before.spikes if not np.array_equal(before.spikes[n], after.spikes[n])}
    assert "blocks.1.prompt.lif" in changed
    assert "blocks.1.moe.gate" in changed
    assert not any(n.startswith(("stem", "prompt", "blocks.0")) for n in changed)


@pytest.mark.parametrize("arithmetic", ["float", "fixed"])
def test_samples_stream_back_to_back_through_the_feedback(arithmetic):
    """Feed-forward: the hardware steps, delays by registers or not, give what the reference gives."""
    graph = lower(settled_model(FEEDBACK))
    graph = quantise(graph) if arithmetic == "fixed" else graph
    inputs = to_inputs(graph, tiny_images(FEEDBACK, 3))
    expected = run_reference(graph, inputs)
    assert all(0 < expected.firing_rate(p) < 1 for p in prompts(graph))
    for each in (graph, register_delays(graph)):
        got = run_stream(each, inputs)
        for name, values in expected.spikes.items():
            exact = values.dtype == bool or arithmetic == "fixed"
            largest = np.abs(values.astype(float) - got.spikes[name]).max()
            assert largest <= (0 if exact else 1e-9), name  # sums in another order


@pytest.mark.parametrize("name", ["random", "colour", "feedback over stages"])
def test_fixed_point_reference_is_what_the_hardware_steps_give(name):
    graph = quantise(lower(settled_model(CONFIGS[name])))
    inputs = to_inputs(graph, tiny_images(CONFIGS[name], 3))
    expected = run_reference(graph, inputs)
    assert_same(expected, run_stream(graph, inputs))
    assert all(0 < expected.firing_rate(p) < 1 for p in prompts(graph))


@pytest.mark.lava
@pytest.mark.parametrize("arithmetic", ["float", "fixed"])
def test_lava_runs_the_feedback(arithmetic):
    config = tiny_config(
        depth=2, cortical_feedback=True, num_experts=2, time_steps=2, stem_channels=(),
        stem_strides=(3,), attention="none",
    )  # fmt: skip
    model, images = settled_model(config), tiny_images(config, 3)
    graph = lower(model)
    expected = simulate(graph, images, arithmetic=arithmetic)
    lava = simulate(graph, images, backend="lava", arithmetic=arithmetic)
    executed = quantise(graph) if arithmetic == "fixed" else graph
    assert compare_traces(executed, expected, lava).same
    assert expected.firing_rate("blocks.1.prompt.lif") > 0


# ---- event frames


EVENTS = tiny_config(input_channels=2, depth=2, cortical_feedback=True)


def event_frames(config, samples):
    """(S, T, C, height, width), each step another frame."""
    stills = tiny_images(config, samples * config.time_steps)
    return stills.unflatten(0, (samples, config.time_steps))


@RESIDUALS
@pytest.mark.parametrize("feedback", [False, True])
def test_event_frames_agree_spike_for_spike(feedback, residual):
    config = tiny_config(input_channels=2, depth=2, cortical_feedback=feedback)
    model, frames = settled_model(config), event_frames(config, 6)
    graph = lower(model, residual=residual)
    ours = simulate(graph, frames)
    torch64 = record_torch(model, frames, residual=residual)
    assert compare_traces(graph, torch64, ours).same
    direct = model.double()(frames.double().transpose(0, 1)).logits.detach().numpy()
    assert np.abs(direct - ours.logits).max() < 1e-9
    relay = ours.spikes["prompt.relay"]
    assert (relay[:, 0] != relay[:, 1]).any(), "each step sees its own frame"


def test_equal_frames_are_a_still_image():
    model, stills = settled_model(EVENTS), tiny_images(EVENTS, 4)
    frames = stills[:, None].expand(-1, EVENTS.time_steps, -1, -1, -1)
    assert_same(record_torch(model, stills), record_torch(model, frames))


def test_event_frames_that_do_not_fit_are_refused():
    model = settled_model(EVENTS)
    with pytest.raises(LoweringError, match=r"frames \(S, 3, C, H, W\), got \(5, 4, 2, 6, 6\)"):
        record_torch(model, torch.zeros(5, 4, 2, 6, 6))
    with pytest.raises(LoweringError, match=r"images \(S, C, H, W\)"):
        record_torch(model, torch.zeros(2, 6, 6))


# ---- the rules by themselves


def test_noise_is_refused_by_name():
    with pytest.raises(LoweringError, match="no source of noise; use prompt='learned'") as caught:
        lower(settled_model(tiny_config(prompt="noise")))
    assert caught.value.module == "prompt"


def test_rules_refuse_other_modules_by_name():
    builder, other = Builder(time_steps=3, unrolled=False), torch.nn.Identity()
    pool, config = RelayPool(FEEDBACK), FEEDBACK
    for path, call in {
        "prompt": lambda: lower_prompt(builder, other, 6),
        "prompt.relay_pool": lambda: lower_relay(builder, other, 6, path="prompt.relay_pool"),
        "blocks.0.prompt": lambda: lower_feedback_prompt(
            builder, other, "blocks.0.prompt", pool, "prompt.relay", None
        ),
        "blocks.1.prompt": lambda: lower_feedback_prompt(
            builder, FeedbackPrompt(config, 8), "blocks.1.prompt", pool, "prompt.relay", None
        ),
    }.items():
        with pytest.raises(LoweringError) as caught:
            call()
        assert caught.value.module == path
    assert not builder.populations


def test_pool_and_projection_are_one_synapse():
    """The dense weight of one neuron, entry by entry: BN scale x projection x pool."""
    config = tiny_config(image_size=4, input_channels=3)
    torch.manual_seed(0)
    prompt = SDPrompt(config).eval().requires_grad_(False)
    torch.nn.init.normal_(prompt.relay_pool.pool.weight)
    prompt.project.norm.running_var.uniform_(0.1, 2.0)
    builder = Builder(time_steps=3, unrolled=False)
    lower_prompt(builder, prompt, 4)
    dense = next(s for s in builder.synapses if s.target == "prompt.lif")
    weight = dense.weight.reshape(config.prompt_width, 4, 4, 6)
    norm = prompt.project.norm
    for m in range(config.prompt_width):
        scale = float(norm.weight[m]) / (float(norm.running_var[m]) + norm.eps) ** 0.5
        for y, x, r in np.ndindex(4, 4, 6):
            column = r * 4 + (y // 2) * 2 + x // 2
            projected = float(prompt.project.linear.weight[m, column])
            pooled = float(prompt.relay_pool.pool.weight[r, 0, y % 2, x % 2])
            assert weight[m, y, x, r] == pytest.approx(scale * projected * pooled, rel=1e-12)
