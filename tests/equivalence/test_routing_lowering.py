"""The routing family lowered: torch in float64, the reference, its stream, and Lava agree."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from routing_family import each_of_the_family, of_family
from tiny_models import settled_model, tiny_config, tiny_images

from hardware.energy import count_operations
from hardware.errors import LoweringError
from hardware.ir import LIF, run_reference
from hardware.ir.stream import run_stream
from hardware.lowering import lower, record_torch
from hardware.passes import quantise
from hardware.passes.bounds import check_bounds
from hardware.passes.gating import Gating
from hardware.simulate import simulate, to_inputs
from hardware.verify import compare_traces

ROUTINGS = (
    "top_k",
    "noisy_top_k",
    "threshold",
    "dynamic",
    "expert_choice",
    "hash",
    "hierarchical",
)
quick = settings(
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)


@st.composite
def configs(draw):
    routing = draw(st.sampled_from(ROUTINGS))
    steps, depth = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    groups, size = draw(st.integers(2, 3)), draw(st.integers(2, 3))
    hierarchical = routing == "hierarchical"
    experts = groups * size if hierarchical else draw(st.integers(2, 5))
    by_image = routing != "expert_choice" and draw(st.integers(0, 3)) == 0
    prompt = "none" if routing == "hash" else draw(st.sampled_from(["learned", "random", "none"]))
    every = draw(st.integers(1, 2)) if depth > 1 else 1
    chain = draw(st.sampled_from([1, 1, 2, 3]))
    return tiny_config(
        routing=routing,
        num_experts=experts,
        num_groups=groups if hierarchical else 1,
        top_k=draw(st.integers(1, size if hierarchical else experts)),
        time_steps=steps,
        depth=depth,
        route_by="image" if by_image else "token",
        router_input="none" if by_image and prompt != "none" and draw(st.booleans()) else "spikes",
        prompt=prompt,
        hold=draw(st.sampled_from(["step", "window"])),
        hold_step=draw(st.integers(0, steps - 1)),
        chain="depth" if chain > 1 else "none",
        chain_length=chain,
        shared_experts=draw(st.integers(0, 2)),
        mixture_every=every,
        mlp_width=draw(st.sampled_from([0, 5])) if every > 1 else 0,
        cortical_feedback=depth > 1 and prompt == "learned" and draw(st.booleans()),
        attention=draw(st.sampled_from(["none", "none", "qk", "dwconv"])),
    )


@dataclass(frozen=True)
class Case:
    config: object
    seed: int


CASES = st.builds(Case, configs(), st.integers(0, 10_000))


def reference(graph, images):
    return run_reference(graph, to_inputs(graph, images))


def assert_same_spikes(left, right, names):
    assert names
    for name in names:
        a, b = left.spikes[name], right.spikes[name]
        if not np.array_equal(a, b):
            sample, step, *index = np.argwhere(a != b)[0]
            raise AssertionError(f"'{name}' differs: sample {sample}, step {step}, neuron {index}")


# ---- the family against torch


@settings(quick, max_examples=24)
@given(CASES)
def test_torch_and_reference_agree_on_the_whole_family(case):
    """Both forms of the residual, in floating point; the integers of both forms, and their stream."""
    model, images = settled_model(case.config, case.seed), tiny_images(case.config, 3, case.seed)
    fixed = {}
    for residual in ("relay", "unrolled"):
        graph = lower(model, residual=residual)
        recorded, ours = record_torch(model, images, residual=residual), reference(graph, images)
        comparison = compare_traces(graph, recorded, ours)
        assert comparison.differing == 0, comparison.first
        assert {p.name for p in graph.of_kind(LIF)} <= set(recorded.spikes)
        assert np.abs(recorded.logits - ours.logits).max() < 1e-9
        integers = quantise(graph)
        check_bounds(integers)
        fixed[residual] = reference(integers, images)
        if residual == "relay":
            inputs = to_inputs(integers, images)
            streamed = run_stream(integers, inputs)
            assert_same_spikes(fixed[residual], streamed, list(integers.populations))
            assert np.array_equal(fixed[residual].logits, streamed.logits)
    common = [n for n in fixed["unrolled"].spikes if n in fixed["relay"].spikes]
    assert_same_spikes(fixed["relay"], fixed["unrolled"], common)
    assert np.array_equal(fixed["relay"].logits, fixed["unrolled"].logits)


@each_of_the_family
def test_the_family_is_alive_and_in_fixed_point_nearly_the_same(name):
    """Gates open and close, and the integers choose as the real numbers do, nearly always."""
    config, model = of_family(name)
    images = tiny_images(config, 20)
    graph = lower(model)
    trace, fixed = reference(graph, images), reference(quantise(graph), images)
    gates = [n for n in graph.populations if n.endswith(".gate")]
    assert len(gates) == len(graph.gate_limits) == len(model.routers())
    for gate in gates:
        rate = trace.firing_rate(gate)
        assert rate == 1 if name == "all" else 0.05 < rate < 0.95, gate
        same = (trace.spikes[gate] == fixed.spikes[gate]).mean()
        assert same > 0.9, f"{gate}: {same}"
    for gate in gates:
        limit = graph.gate_limits[gate.removesuffix(".gate")]
        for run in (trace, fixed):
            assert run.spikes[gate].sum(axis=-1).max() <= limit


# ---- ties


def whole_scores(model):
    """Weights and biases that are multiples of 1/4, so that sums are exact and often equal."""
    for router in model.routers():
        for layer in (router.from_prompt, router.from_token):
            if layer is not None:
                layer.weight.data.copy_((8 * layer.weight.data).round().clamp(-1, 1) / 4)
        generator = torch.Generator().manual_seed(0)
        shape = router.homeostatic_bias.shape
        router.homeostatic_bias.copy_(torch.randint(0, 2, shape, generator=generator) / 4)
    return model


CONTESTS = {
    "top_k": {"num_experts": 4, "top_k": 2},
    "all": {"num_experts": 4, "top_k": 4},
    "held": {"num_experts": 4, "hold": "window"},
    "expert_choice": {"routing": "expert_choice", "num_experts": 4},
    "expert_choice_2": {"routing": "expert_choice", "num_experts": 4, "top_k": 2},
    "hierarchical": {"routing": "hierarchical", "num_experts": 6, "num_groups": 3},
    "hierarchical_2": {"routing": "hierarchical", "num_experts": 6, "num_groups": 2, "top_k": 2},
}


@pytest.mark.parametrize("name", CONTESTS)
def test_ties_are_broken_alike(name):
    config = tiny_config(**CONTESTS[name])
    model = whole_scores(settled_model(config))
    images = tiny_images(config, 20)
    graph = lower(model)
    trace = reference(graph, images)
    scores = trace.spikes["blocks.0.moe.score"]  # (S, T, side, side, channels)
    if name.startswith("expert_choice"):
        scores = np.moveaxis(scores.reshape(*scores.shape[:2], -1, 4), 2, -1)
        k = model.routers()[0].choose.capacity(9)
    elif name.startswith("hierarchical"):
        scores, k = scores[..., config.num_groups :][..., : 6 // config.num_groups], config.top_k
    else:
        k = min(config.top_k, 3)
    ranked = np.sort(scores, axis=-1)[..., ::-1]
    assert (ranked[..., k - 1] == ranked[..., k]).mean() > 0.05, "ties must be common"
    comparison = compare_traces(graph, record_torch(model, images), trace)
    assert comparison.same, comparison.first
    gate = trace.spikes["blocks.0.moe.gate"]
    if name.startswith("expert_choice"):
        assert (gate.sum(axis=(2, 3)) == k).all()
    else:
        assert (gate.sum(axis=-1) == config.top_k).all()


@pytest.mark.parametrize("routing", ["threshold", "dynamic"])
def test_a_score_of_exactly_zero_opens_no_gate(routing):
    config = tiny_config(routing=routing, num_experts=4)
    model = whole_scores(settled_model(config))
    if routing == "dynamic":
        model.routers()[0].learned_threshold.data.copy_(torch.tensor([0.25, 0, -0.25, 0.5]))
    images = tiny_images(config, 20)
    seen = model.double()(images.double()).routing[0].scores + model.routers()[0].homeostatic_bias
    assert (seen == 0).double().mean() > 0.05, "zeros must be common"
    graph = lower(model)
    comparison = compare_traces(graph, record_torch(model, images), reference(graph, images))
    assert comparison.same, comparison.first


# ---- what a closed gate costs


@pytest.mark.parametrize("arithmetic", ["float", "fixed"])
@pytest.mark.parametrize(
    "name", ["threshold", "held_threshold", "expert_choice", "hierarchical", "image", "chain"]
)
def test_an_expert_works_only_where_its_gate_is_open(name, arithmetic):
    """Per token, not only in total; and an expert whose gates are all shut has no operation."""
    config, model = of_family(name)
    shut = 0
    for router in model.routers():
        if name == "expert_choice":  # takes its share of tokens whatever its scores are: shut none
            continue
        offset = router.choose.score_channels - config.num_experts
        router.homeostatic_bias[offset + shut] = -1e3
    graph = lower(model)
    graph = quantise(graph) if arithmetic == "fixed" else graph
    trace = reference(graph, tiny_images(config, 10))
    opened = False
    for path in graph.gate_limits:
        gates = trace.spikes[f"{path}.latch" if config.hold == "window" else f"{path}.gate"]
        for e in range(config.num_experts):
            hidden = trace.spikes[f"{path}.experts.{e}.hidden"]
            gated = trace.spikes[f"{path}.experts.{e}.gated"]
            closed = np.broadcast_to(~gates[..., e].astype(bool), hidden.shape[:-1])
            assert not hidden[closed].any()
            assert not gated[closed].any()
            opened = opened or hidden.any()
    assert opened
    if name == "expert_choice":
        return
    counts = count_operations(graph, trace)
    work = {
        expert: sum(
            sum(tally.operations.values())
            for s, tally in zip(graph.synapses, counts.synapses, strict=True)
            if s.expert is not None and s.expert[1] == expert
        )
        for expert in range(config.num_experts)
    }
    assert work[shut] == 0
    assert sum(work.values()) > 0


# ---- the bound


def marks(graph):
    """(population, synapse, whether its mark is trusted) of every marked synapse."""
    gating = Gating(graph)
    for name in graph.order:
        incoming = graph.incoming(name)
        for synapse, kept in zip(incoming, gating.trusted_marks(incoming), strict=True):
            if synapse.expert is not None:
                yield name, synapse, kept.expert is not None


@each_of_the_family
@pytest.mark.parametrize("residual", ["relay", "unrolled"])
def test_every_mark_that_lowering_makes_is_shown_by_the_graph(name, residual):
    config, model = of_family(name)
    for graph in (lower(model, residual=residual), quantise(lower(model, residual=residual))):
        found = list(marks(graph))
        assert len(found) >= 3 * config.num_experts
        assert all(trusted for _, _, trusted in found)


@each_of_the_family
def test_a_mark_of_another_expert_or_of_no_gate_is_found(name):
    """Marks exchanged, gates turned into plain neurons, thresholds that claim to be contests."""
    config, model = of_family(name)
    graph = lower(model)

    def moved(synapse):
        if synapse.expert is None:
            return synapse
        router, e = synapse.expert
        return replace(synapse, expert=(router, (e + 1) % config.num_experts))

    exchanged = graph.with_(synapses=[moved(s) for s in graph.synapses])
    assert not any(trusted for _, _, trusted in marks(exchanged))

    plain = graph.with_(
        populations=[
            replace(p, role="neuron") if p.role in ("gate", "threshold", "latch") else p
            for p in graph.populations.values()
        ]
    )
    assert not any(trusted for _, _, trusted in marks(plain))

    if "threshold" in name or name == "dynamic":
        limited = replace(graph, gate_limits=dict.fromkeys(graph.gate_limits, 1))
        assert not any(trusted for _, _, trusted in marks(limited))


def test_marks_of_one_router_behind_gates_of_two_are_found():
    """Experts of both links claim to belong to the first, whose limit then says nothing."""
    config, model = of_family("chain")
    graph = lower(model, residual="unrolled")
    first, second = graph.gate_limits
    merged = graph.with_(
        synapses=[
            replace(s, expert=(first, s.expert[1])) if s.expert is not None else s
            for s in graph.synapses
        ]
    )
    both = [trusted for name, _, trusted in marks(merged) if name == "head.x"]
    assert len(both) == 2 * config.num_experts
    assert not any(both)
    assert all(trusted for name, _, trusted in marks(graph) if name == "head.x")
    assert second == "blocks.0.moe.links.0"


def test_a_sum_over_tokens_hears_experts_of_every_token():
    """With one gate per token, K experts per token are more than K experts in the sum."""
    for name, sound in (("top_2", False), ("image", True)):
        _, model = of_family(name)
        graph = lower(model, residual="unrolled")
        pooled = []
        for s in graph.synapses:
            if s.target == "head.x" and s.expert is not None:
                weight = np.broadcast_to(s.weight / 9, (*s.weight.shape[:2], 3, 3)).copy()
                s = replace(s, weight=weight, padding=(1, 1))
            pooled.append(s)
        found = [t for n, _, t in marks(graph.with_(synapses=pooled)) if n == "head.x"]
        assert len(found) == 4
        assert all(t is sound for t in found), name


# ---- what is refused


@pytest.mark.parametrize(
    ("options", "module", "reason"),
    [
        (
            {"router_input": "membrane"},
            "blocks.0.moe.router",
            "router_input='membrane' scores real-valued membranes.*use router_input='spikes'",
        ),
        ({"prompt": "noise"}, "prompt", "prompt='noise' draws its bits at random"),
        ({"chain": "time"}, "blocks.0.moe", "a cycle of several populations; use chain='depth'"),
        ({"attention": "ssa"}, "blocks.0.attention", "ssa multiplies two spike matrices"),
    ],
)
@pytest.mark.parametrize("residual", ["relay", "unrolled"])
def test_what_cannot_be_lowered_is_refused_by_name(options, module, reason, residual):
    model = settled_model(tiny_config(**options))
    with pytest.raises(LoweringError, match=reason) as caught:
        lower(model, residual=residual)
    assert caught.value.module == module
    with pytest.raises(LoweringError):
        record_torch(model, tiny_images(model.config, 2))


# ---- Lava


LAVA = {
    "top_k of three": {"num_experts": 3, "top_k": 2},
    "noisy_top_k": {"routing": "noisy_top_k"},
    "hash": {"routing": "hash", "prompt": "none"},
    "threshold": {"routing": "threshold"},
    "dynamic": {"routing": "dynamic"},
    "expert_choice": {"routing": "expert_choice"},
    "hierarchical": {"routing": "hierarchical", "num_experts": 4, "num_groups": 2},
    "image_held": {"route_by": "image", "hold": "window"},
    "chain_shared": {"chain": "depth", "chain_length": 2, "shared_experts": 1},
    "alternating_feedback": {"depth": 2, "mixture_every": 2, "cortical_feedback": True},
}
SMALLEST = {
    "stem_channels": (),
    "stem_strides": (3,),
    "embed_dim": 4,
    "expert_width": 3,
    "num_experts": 2,
    "time_steps": 2,
    "prompt_width": 3,
    "attention": "none",
}


@pytest.mark.lava
@pytest.mark.parametrize("arithmetic", ["float", "fixed"])
@pytest.mark.parametrize("name", LAVA)
def test_lava_sends_the_same_spikes(name, arithmetic):
    config = tiny_config(**{**SMALLEST, **LAVA[name]})
    graph = lower(settled_model(config))
    images = tiny_images(config, 3)
    expected = simulate(graph, images, arithmetic=arithmetic)
    got = simulate(graph, images, backend="lava", arithmetic=arithmetic)
    if arithmetic == "fixed":
        assert_same_spikes(expected, got, list(expected.spikes))
        assert np.array_equal(expected.logits, got.logits)
    else:  # relays and logits sum real numbers in another order
        assert_same_spikes(expected, got, [p.name for p in graph.of_kind(LIF)])
        assert np.abs(expected.logits - got.logits).max() < 1e-9
    gates = [n for n in graph.populations if n.endswith((".gate", ".latch"))]
    assert any(0 < expected.firing_rate(n) < 1 for n in gates)
    assert any(expected.spikes[n].any() for n in expected.spikes if n.endswith(".hidden"))
