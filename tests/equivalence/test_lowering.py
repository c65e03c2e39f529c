"""Torch in float64 against the reference, for many small models; and what is refused by name."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import snntorch
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tiny_models import settled_model, tiny_config, tiny_images
from torch import nn

from hardware.errors import BackendError, LoweringError
from hardware.ir import LIF, run_reference
from hardware.ir.stream import run_stream
from hardware.lowering import lower, record_torch
from hardware.passes import balance_delays, drop_dead, quantise, register_delays
from hardware.simulate import simulate, to_inputs
from hardware.verify import compare_traces
from spikingmoe.config import relu_twin
from spikingmoe.layers.expert import SpikingMLP
from spikingmoe.layers.gates import HashGate, ThresholdGate, TopKGate
from spikingmoe.layers.moe import DenseMLP
from spikingmoe.layers.neuron import LIF as TorchLIF
from spikingmoe.layers.router import WindowHold
from spikingmoe.model import SpikingTransformer


@st.composite
def configs(draw):
    experts = draw(st.integers(2, 5))
    steps = draw(st.integers(1, 6))
    embed_dim, heads = draw(st.sampled_from([(4, 1), (8, 2), (6, 3), (8, 8)]))
    channels, strides = draw(
        st.sampled_from([((), (2,)), ((4,), (2, 1)), ((4,), (1, 2)), ((3, 5), (2, 1, 2))])
    )
    moe = {
        "num_experts": experts,
        "top_k": draw(st.integers(1, min(3, experts))),
        "hold": draw(st.sampled_from(["step", "window"])),
        "hold_step": draw(st.integers(0, steps - 1)),
    }
    dense = {"routing": "dense", "num_experts": 1}
    return tiny_config(
        time_steps=steps,
        embed_dim=embed_dim,
        num_heads=heads,
        stem_channels=channels,
        stem_strides=strides,
        input_channels=draw(st.integers(1, 3)),
        depth=draw(st.integers(1, 2)),
        prompt_grid=draw(st.sampled_from([1, 2, 3])),
        membrane_decay=draw(st.sampled_from([0.5, 0.5, 0.25, 0.0])),
        **(dense if draw(st.integers(0, 5)) == 0 else moe),
    )


@dataclass(frozen=True)
class Case:
    config: object
    seed: int


CASES = st.builds(Case, configs(), st.integers(0, 10_000))
slow_is_fine = settings(
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # the models are small already, and shrinking takes minutes
    suppress_health_check=[HealthCheck.too_slow],
)
PER_STEP = tiny_config(num_experts=4, top_k=2, depth=2)
HELD = replace(PER_STEP, hold="window", hold_step=1, time_steps=4)


def reference(graph, images):
    return run_reference(graph, to_inputs(graph, images))


def assert_spikes_equal(left, right, names=None):
    names = list(left.spikes if names is None else names)
    assert names
    for name in names:
        a, b = left.spikes[name], right.spikes[name]
        assert a.shape == b.shape, name
        if not np.array_equal(a, b):
            sample, step, *index = np.argwhere(a != b)[0]
            raise AssertionError(f"'{name}' differs: sample {sample}, step {step}, neuron {index}")


def lif_names(graph):
    return [p.name for p in graph.of_kind(LIF)]


@settings(slow_is_fine, max_examples=40)
@given(CASES)
def test_torch_and_reference_agree_spike_for_spike(case):
    model = settled_model(case.config, case.seed)
    images = tiny_images(case.config, 5, case.seed)
    graph = lower(model)
    ours, torch64 = reference(graph, images), record_torch(model, images)
    assert set(lif_names(graph)) <= set(torch64.spikes)
    comparison = compare_traces(graph, torch64, ours)
    assert comparison.differing == 0, comparison.first
    assert comparison.same
    # float64, sums in another order
    assert np.abs(torch64.logits - ours.logits).max() < 1e-9
    direct = model.double()(images.double()).logits.detach().numpy()
    assert np.abs(direct - ours.logits).max() < 1e-9


@pytest.mark.parametrize("config", [PER_STEP, HELD], ids=["step", "window"])
def test_the_models_of_these_tests_are_alive(config):
    """Equality of silent networks would show nothing: every part spikes, and not always."""
    graph = lower(settled_model(config))
    trace = reference(graph, tiny_images(config, 20))
    for name in lif_names(graph):
        assert 0 < trace.firing_rate(name) < 1, name
    for router in graph.gate_limits:
        chosen = trace.spikes[f"{router}.gate"].reshape(-1, config.num_experts).mean(axis=0)
        assert (chosen > 0.02).sum() >= 3, "the router must use its choice"


@settings(slow_is_fine, max_examples=15)
@given(CASES)
def test_both_forms_of_the_residual_are_the_same_network(case):
    model = settled_model(case.config, case.seed)
    images = tiny_images(case.config, 4, case.seed)
    relay, unrolled = lower(model), lower(model, residual="unrolled")
    common = [n for n in relay.populations if n in unrolled.populations]
    assert set(lif_names(relay)) == set(lif_names(unrolled))
    assert not any(n.startswith("stream") for n in unrolled.populations)
    traces = [reference(g, images) for g in (relay, unrolled)]
    assert_spikes_equal(*traces, lif_names(relay))
    assert np.abs(traces[0].logits - traces[1].logits).max() < 1e-9
    fixed = [quantise(g) for g in (relay, unrolled)]
    common = [n for n in fixed[0].populations if n in fixed[1].populations]
    integers = [reference(g, images) for g in fixed]
    assert_spikes_equal(*integers, common)
    assert np.array_equal(integers[0].logits, integers[1].logits)


@pytest.mark.parametrize("config", [PER_STEP, HELD], ids=["step", "window"])
@pytest.mark.parametrize("arithmetic", ["float", "fixed"])
def test_each_pass_keeps_the_spikes(config, arithmetic):
    graph = lower(settled_model(config))
    graph = quantise(graph) if arithmetic == "fixed" else graph
    inputs = to_inputs(graph, tiny_images(config, 3))
    golden = run_reference(graph, inputs)
    stretched = graph.with_(synapses=[replace(s, delay=1) for s in graph.synapses])
    assert not stretched.is_balanced
    for name, rewritten in {
        "drop_dead": drop_dead(graph),
        "balance_delays": balance_delays(stretched),
        "register_delays": register_delays(graph),
        "both": register_delays(balance_delays(drop_dead(stretched))),
    }.items():
        streamed = run_stream(rewritten, inputs)
        assert_spikes_equal(golden, streamed, lif_names(graph))
        assert np.array_equal(golden.logits, streamed.logits) or arithmetic == "float", name
        assert np.abs(golden.logits - streamed.logits).max() < 1e-9
    assert all(s.delay == 1 for s in register_delays(graph).synapses)
    assert any(s.delay > 1 for s in graph.synapses), "otherwise the registers were not tried"


def test_dead_populations_are_dropped():
    graph = lower(settled_model(PER_STEP))
    dead = replace(graph.populations["head.x"], name="dead")
    synapses = [replace(s, target="dead") for s in graph.incoming("head.x")]
    grown = graph.with_(
        populations=[*graph.populations.values(), dead], synapses=[*graph.synapses, *synapses]
    )
    shrunk = drop_dead(grown)
    assert list(shrunk.populations) == list(graph.populations)
    assert shrunk.fingerprint == graph.fingerprint


@pytest.mark.parametrize("hold_step", [0, 1, 3])
@pytest.mark.parametrize("arithmetic", ["float", "fixed"])
def test_samples_do_not_see_each_other(hold_step, arithmetic):
    """No state passes from one sample to the next: any order, any batch, window hold included."""
    config = replace(HELD, hold_step=hold_step)
    graph = lower(settled_model(config))
    graph = quantise(graph) if arithmetic == "fixed" else graph
    images = tiny_images(config, 12)
    together = reference(graph, images)
    order = np.random.default_rng(0).permutation(12)
    shuffled = reference(graph, images[torch.from_numpy(order)])
    alone = [reference(graph, images[i : i + 1]) for i in range(12)]
    for name, spikes in together.spikes.items():
        assert np.array_equal(spikes[order], shuffled.spikes[name]), name
        assert np.array_equal(spikes, np.concatenate([t.spikes[name] for t in alone])), name


def test_more_samples_than_a_batch_of_the_reference():
    config = replace(HELD, depth=1)
    graph = lower(settled_model(config))
    images = tiny_images(config, 70)
    together, last = reference(graph, images), reference(graph, images[60:])
    for name, spikes in together.spikes.items():
        assert np.array_equal(spikes[60:], last.spikes[name]), name


@pytest.mark.parametrize("hold_step", [0, 1, 2, 3])
def test_held_gates_are_silent_before_their_step_and_constant_after(hold_step):
    config = replace(HELD, hold_step=hold_step)
    model = settled_model(config)
    images = tiny_images(config, 10)
    graph = lower(model)
    trace = reference(graph, images)
    assert compare_traces(graph, record_torch(model, images), trace).same
    for router in graph.gate_limits:
        latch, gate = trace.spikes[f"{router}.latch"], trace.spikes[f"{router}.gate"]
        assert not latch[:, :hold_step].any()
        for step in range(hold_step, config.time_steps):
            assert np.array_equal(latch[:, step], gate[:, hold_step])
        assert latch[:, hold_step].sum(axis=-1).tolist() == np.full((10, 3, 3), 2).tolist()
        for expert in range(config.num_experts):
            assert not trace.spikes[f"{router}.experts.{expert}.hidden"][:, :hold_step].any()


@pytest.mark.parametrize("top_k", [1, 2, 3, 4])
def test_exactly_k_gates_open_even_in_fixed_point(top_k):
    config = replace(PER_STEP, top_k=top_k)
    for graph in (lower(settled_model(config)), quantise(lower(settled_model(config)))):
        trace = reference(graph, tiny_images(config, 10))
        for router in graph.gate_limits:
            assert (trace.spikes[f"{router}.gate"].sum(axis=-1) == top_k).all()


@pytest.mark.parametrize("top_k", [1, 2, 3])
@pytest.mark.parametrize("hold", ["step", "window"])
def test_ties_are_broken_alike(top_k, hold):
    """Router weights from {-1/4, 0, 1/4}: sums are exact and very many scores are equal."""
    config = replace(PER_STEP, top_k=top_k, hold=hold)
    model = settled_model(config)
    for block in model.blocks:
        router = block.moe.router
        for weight in (router.from_prompt.weight, router.from_token.weight):
            weight.data.copy_((8 * weight.data).round().clamp(-1, 1) / 4)
        router.homeostatic_bias.copy_(torch.tensor([0.25, 0.0, 0.25, 0.0]))
    images = tiny_images(config, 20)
    graph = lower(model)
    trace = reference(graph, images)
    scores = np.sort(trace.spikes["blocks.0.moe.score"], axis=-1)[..., ::-1]
    assert (scores[..., top_k - 1] == scores[..., top_k]).mean() > 0.05, "ties must be common"
    comparison = compare_traces(graph, record_torch(model, images), trace)
    assert comparison.same, comparison.first


def test_event_frames_run_on_the_reference():
    config = replace(PER_STEP, input_channels=2)
    model = settled_model(config).double()
    frames = tiny_images(config, 5 * config.time_steps).double()
    frames = frames.unflatten(0, (config.time_steps, 5))  # (T, B, C, height, width)
    graph = lower(model)
    trace = simulate(graph, frames.transpose(0, 1))
    logits = model(frames).logits.detach().numpy()
    assert np.abs(trace.logits - logits).max() < 1e-9


# ---- what is refused


class Impostor(nn.Module):
    """Computes something, but nothing that has a rule."""

    def forward(self, x, *_):
        return x


def refused(path):
    """A model with the module at `path` replaced."""
    model = settled_model(PER_STEP)
    parent, _, name = path.rpartition(".")
    owner = model.get_submodule(parent)
    impostor = snntorch.Leaky(beta=0.5) if name.endswith("neuron") else Impostor()
    setattr(owner, name, impostor)
    return model


@pytest.mark.parametrize(
    "path",
    [
        "stem",
        "prompt",
        "blocks.1.attention",
        "blocks.1.moe",
        "blocks.0.moe.router",
        "blocks.1.moe.experts",
        "head_neuron",
        "blocks.0.attention.token_neuron",
        "blocks.1.moe.neuron",
        "prompt.relay_pool.relay_neuron",
        "blocks.0.moe.experts.neuron",
    ],
)
def test_replaced_modules_are_refused_by_name(path):
    with pytest.raises(LoweringError) as caught:
        lower(refused(path))
    assert caught.value.module == path
    assert f"cannot lower '{path}'" in str(caught.value)


class Either(nn.Module):
    """OR in the place of AND."""

    def forward(self, a, b):
        return torch.maximum(a.expand_as(b), b)


class SoftReset(TorchLIF):
    """A subclass that computes something else."""

    def forward(self, current):
        return (current > 1).to(current.dtype)


class Lenient(TopKGate):
    """A subclass that opens more gates than it says."""

    def forward(self, scores):
        return (scores > 0).to(scores.dtype)


@pytest.mark.parametrize(
    ("path", "module"),
    [
        ("blocks.0.attention.gate", Either()),
        ("blocks.1.attention.neuron", SoftReset()),
        ("stem.convs.0.conv", nn.Conv2d(1, 4, 3, stride=2, padding=1, bias=True)),
        ("stem.convs.0.conv", nn.Conv2d(1, 4, 3, stride=2, padding=2, dilation=2, bias=False)),
        ("stem.convs.0", nn.Identity()),
        ("blocks.0.attention.query.linear", nn.Linear(8, 8)),
        ("blocks.0.attention.query.norm", nn.LayerNorm(8)),
        ("blocks.0.moe.router.from_token", nn.Linear(8, 4)),
        ("blocks.0.moe.router.choose", Lenient(PER_STEP)),
        ("blocks.0.moe.router.choose", TopKGate(replace(PER_STEP, top_k=1))),
        ("blocks.0.moe.router.choose", HashGate(PER_STEP)),
        ("blocks.1.moe.router.choose", ThresholdGate(PER_STEP)),
        ("blocks.1.moe.router.hold", WindowHold(1)),
        ("blocks.1.moe.shared", SpikingMLP(PER_STEP, 6)),
        ("blocks.1.mlp", DenseMLP(PER_STEP)),
        ("head", nn.Linear(8, 3, bias=False)),
        ("blocks.1", nn.Identity()),
        ("blocks.0.extra", nn.Linear(2, 2)),
    ],
)
def test_parts_that_compute_something_else_are_not_lowered_as_if_they_did_not(path, module):
    """The rules read weights: what `forward` does besides must not be passed over."""
    model = settled_model(PER_STEP)
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)
    with pytest.raises(LoweringError) as caught:
        lower(model)
    assert caught.value.module == path


def test_neurons_may_differ_in_decay_and_threshold():
    model = settled_model(PER_STEP)
    model.blocks[0].attention.key_neuron = TorchLIF(membrane_decay=0.25, threshold=0.75)
    model.blocks[1].moe.experts.neuron = TorchLIF(membrane_decay=0.0, threshold=0.5)
    images = tiny_images(PER_STEP, 6)
    graph = lower(model)
    assert graph.populations["blocks.0.attention.k"].membrane_decay == 0.25
    assert compare_traces(graph, record_torch(model, images), reference(graph, images)).same


def test_lowering_leaves_the_random_numbers_alone():
    model = settled_model(PER_STEP)
    before = torch.get_rng_state()
    lower(model)
    assert torch.equal(torch.get_rng_state(), before)


def test_what_has_no_spikes_is_refused():
    model = SpikingTransformer(relu_twin(PER_STEP))
    with pytest.raises(LoweringError, match="ReLU is no LIF neuron") as caught:
        lower(model)
    assert caught.value.module == "stem.neurons.0"
    with pytest.raises(LoweringError, match="only spikingmoe models can be lowered"):
        lower(nn.Linear(2, 2))
    with pytest.raises(LoweringError, match="cannot lower 'str'"):
        lower("digits")


def test_unknown_residual_is_refused():
    with pytest.raises(ValueError, match="residual='graded'; use 'relay' or 'unrolled'"):
        lower(settled_model(PER_STEP), residual="graded")


def test_inputs_that_do_not_fit_are_refused():
    graph = lower(settled_model(PER_STEP))
    with pytest.raises(BackendError, match=r"images have shape \(2, 3, 6, 6\)"):
        simulate(graph, np.zeros((2, 3, 6, 6)))
    with pytest.raises(BackendError, match="not finite"):
        simulate(graph, np.full((2, 1, 6, 6), np.nan))
    unbalanced = graph.with_(synapses=[replace(s, delay=1) for s in graph.synapses])
    with pytest.raises(BackendError, match="balanced delays"):
        run_reference(unbalanced, np.zeros((1, 1, 6, 6, 1)))
