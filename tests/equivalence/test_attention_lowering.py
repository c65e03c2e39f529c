"""Attention on torch, on the reference and on Lava: the same spikes in every population."""

import numpy as np
import pytest
import torch
from graphs import assert_same
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tiny_models import settled_model, tiny_config, tiny_images

from hardware.errors import LoweringError
from hardware.ir import LIF, Sparse, run_reference
from hardware.ir.stream import run_stream
from hardware.lowering import lower, record_torch
from hardware.passes import quantise
from hardware.simulate import simulate, to_inputs
from hardware.verify import compare_traces
from spikingmoe.config import ModelConfig
from spikingmoe.model import SpikingTransformer

LOWERED = ["qk", "sdsa", "dwconv", "none"]
NAMES = {
    "qk": {"x", "q", "k", "token", "and"},
    "sdsa": {"x", "q", "k", "v", "kv", "channel", "and"},
    "dwconv": {"x", "mixed"},
    "none": set(),
}
settled = settings(
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # the models are small already, and shrinking takes minutes
    suppress_health_check=[HealthCheck.too_slow],
)


def config_of(kind: str, **options: object) -> ModelConfig:
    """Two blocks without a mixture: stem, attention, MLP, attention, MLP, head."""
    dense = {"routing": "dense", "num_experts": 1, "depth": 2}
    return tiny_config(attention=kind, **{**dense, **options})


def model_of(config: ModelConfig, seed: int = 0) -> SpikingTransformer:
    """A settled model; in sdsa it takes one to several spikes to cross a channel's threshold."""
    model = settled_model(config, seed)
    if config.attention == "sdsa":
        for block in model.blocks:
            gains = block.attention.log_gain.data
            gains -= torch.linspace(0, 1.8, len(gains))
    return model


@st.composite
def cases(draw):
    embed_dim, heads = draw(st.sampled_from([(4, 1), (8, 2), (6, 3), (8, 8)]))
    channels, strides = draw(
        st.sampled_from([((), (2,)), ((4,), (2, 1)), ((4,), (1, 2)), ((3,), (3, 1))])
    )
    config = config_of(
        draw(st.sampled_from(LOWERED)),
        local_mixing=draw(st.sampled_from(["none", "none", "conv", "dwconv"])),
        time_steps=draw(st.integers(1, 5)),
        embed_dim=embed_dim,
        num_heads=heads,
        stem_channels=channels,
        stem_strides=strides,
        depth=draw(st.integers(1, 2)),
        membrane_decay=draw(st.sampled_from([0.5, 0.5, 0.25, 0.0])),
        threshold=draw(st.sampled_from([1.0, 1.0, 0.75])),
    )
    return config, draw(st.integers(0, 10_000))


def reference(graph, images):
    return run_reference(graph, to_inputs(graph, images))


@settings(settled, max_examples=40)
@given(cases())
def test_torch_and_reference_agree_spike_for_spike(case):
    config, seed = case
    model, images = model_of(config, seed), tiny_images(config, 6, seed)
    graph = lower(model)
    torch64, ours = record_torch(model, images), reference(graph, images)
    assert {p.name for p in graph.of_kind(LIF)} <= set(torch64.spikes)
    comparison = compare_traces(graph, torch64, ours)
    assert comparison.differing == 0, comparison.first
    assert comparison.same


@settings(settled, max_examples=16)
@given(cases())
def test_both_forms_of_the_residual_are_the_same_integer_network(case):
    config, seed = case
    model, images = model_of(config, seed), tiny_images(config, 4, seed)
    graphs = [lower(model), lower(model, residual="unrolled")]
    traces = [reference(g, images) for g in graphs]
    integers = [reference(quantise(g), images) for g in graphs]
    for name in (p.name for p in graphs[0].of_kind(LIF)):
        assert np.array_equal(traces[0].spikes[name], traces[1].spikes[name]), name
        assert np.array_equal(integers[0].spikes[name], integers[1].spikes[name]), name
    assert np.array_equal(integers[0].logits, integers[1].logits)


@pytest.mark.parametrize("kind", LOWERED)
def test_fixed_point_means_the_same_step_by_step(kind):
    config = config_of(kind)
    graph = quantise(lower(model_of(config)))
    inputs = to_inputs(graph, tiny_images(config, 5))
    assert_same(run_reference(graph, inputs), run_stream(graph, inputs))


@pytest.mark.parametrize("arithmetic", ["float", "fixed"])
@pytest.mark.parametrize("kind", LOWERED)
def test_the_models_of_these_tests_are_alive(kind, arithmetic):
    """Equality of silent networks would show nothing: every population spikes, and not always."""
    config = config_of(kind)
    graph = lower(model_of(config))
    names = {n.rpartition(".")[2] for n in graph.populations if ".attention." in n}
    assert names == NAMES[kind]
    trace = simulate(graph, tiny_images(config, 30), arithmetic=arithmetic)
    for name in (p.name for p in graph.of_kind(LIF)):
        assert 0 < trace.firing_rate(name) < 1, name


@pytest.mark.parametrize("kind", ["qk", "sdsa", "dwconv"])
def test_quantised_weights_keep_most_spikes(kind):
    """8-bit weights change some spikes, not the network: a wrong scale would change many."""
    config = config_of(kind)
    graph, images = lower(model_of(config)), tiny_images(config, 30)
    real, whole = (simulate(graph, images, arithmetic=a) for a in ("float", "fixed"))
    for name in (p.name for p in graph.of_kind(LIF) if "blocks.0.attention" in p.name):
        different = np.mean(real.spikes[name] != whole.spikes[name])
        assert different < 0.3 * real.firing_rate(name), name


@pytest.mark.parametrize("kind", ["sdsa", "dwconv"])
def test_with_a_mixture_behind_it(kind):
    config = tiny_config(attention=kind, top_k=2)
    model, images = model_of(config), tiny_images(config, 6)
    graph = lower(model)
    assert compare_traces(graph, record_torch(model, images), reference(graph, images)).same


@pytest.mark.parametrize("kind", ["qk", "sdsa"])
def test_gains_on_which_many_sums_equal_the_threshold_exactly(kind):
    """Gains of 1/4 and 1/8: counts of 4 and 8 are no spikes at the first step, in both."""
    config = config_of(kind, time_steps=3)
    model, images = model_of(config), tiny_images(config, 40)
    for block in model.blocks:
        attention = block.attention
        tokens = config.tokens_per_side**2 if kind == "sdsa" else 1
        pattern = torch.tensor([0.5, 0.25]).repeat(len(attention.log_gain) // 2)
        attention.log_gain.data.copy_((pattern * tokens).log())
    graph = lower(model)
    torch64, ours = record_torch(model, images), reference(graph, images)
    comparison = compare_traces(graph, torch64, ours)
    assert comparison.same, comparison.first


def test_untrained_models_agree_too():
    """Initial gains are alike, and so are many sums."""
    for kind in ("qk", "sdsa", "dwconv"):
        config = config_of(kind)
        torch.manual_seed(0)
        model, images = SpikingTransformer(config).eval(), 3 * tiny_images(config, 60)
        graph = lower(model)
        comparison = compare_traces(graph, record_torch(model, images), reference(graph, images))
        assert comparison.same, comparison.first


def test_sums_over_tokens_and_their_broadcast_are_listed_connections():
    """sdsa: N connections into each channel neuron with its gain, N out of it with weight 1."""
    config = config_of("sdsa", depth=1)
    model = settled_model(config)
    graph, path = lower(model), "blocks.0.attention"
    tokens, channels = config.tokens_per_side**2, config.embed_dim
    (inward,) = graph.incoming(f"{path}.channel")
    (outward,) = graph.outgoing(f"{path}.channel")
    assert isinstance(inward, Sparse)
    assert isinstance(outward, Sparse)
    gain = np.exp(model.blocks[0].attention.log_gain.detach().double().numpy()) / tokens
    into, out = graph.matrix(inward).toarray(), graph.matrix(outward).toarray()
    for n in range(tokens):
        own = slice(n * channels, (n + 1) * channels)
        assert np.allclose(into[:, own], np.diag(gain), rtol=2e-7)  # float32 gains
        assert np.array_equal(out[own], np.eye(channels))


def test_ssa_is_refused_by_name():
    model = settled_model(config_of("ssa"))
    assert torch.isfinite(model(tiny_images(model.config, 2)).logits).all()
    with pytest.raises(
        LoweringError,
        match=r"cannot lower 'blocks\.0\.attention': ssa multiplies two spike matrices .*; "
        r"use attention 'qk' or 'sdsa'",
    ) as caught:
        lower(model)
    assert caught.value.module == "blocks.0.attention"


@pytest.mark.parametrize(("kind", "other"), [("sdsa", "qk"), ("dwconv", "sdsa")])
def test_another_attention_in_its_place_is_refused(kind, other):
    model = settled_model(config_of(kind))
    model.blocks[1].attention = settled_model(config_of(other)).blocks[1].attention
    with pytest.raises(LoweringError) as caught:
        lower(model)
    assert caught.value.module == "blocks.1.attention"


@pytest.mark.lava
@pytest.mark.parametrize("arithmetic", ["float", "fixed"])
@pytest.mark.parametrize("kind", ["sdsa", "dwconv", "conv mixing"])
def test_lava_sends_the_same_spikes(kind, arithmetic):
    if kind == "conv mixing":
        config = config_of("none", local_mixing="conv", depth=1, time_steps=3)
    else:
        config = config_of(kind, depth=1, time_steps=3)
    graph, images = lower(model_of(config)), tiny_images(config, 3)
    expected = simulate(graph, images, arithmetic=arithmetic)
    got = simulate(graph, images, backend="lava-stock", arithmetic=arithmetic)
    prepared = quantise(graph) if arithmetic == "fixed" else graph
    comparison = compare_traces(prepared, expected, got)
    assert comparison.same, comparison.first
    assert all(0 < got.firing_rate(n) < 1 for n in got.spikes if n.startswith("blocks."))
