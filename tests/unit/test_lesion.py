"""Lesions: what is silent is silent, nothing else moves, everything comes back."""

import copy

import numpy as np
import pytest
import torch
from tiny_models import settled_model, tiny_config, tiny_images

from spikingmoe.analysis import (
    Effect,
    choose_targets,
    lesion,
    list_targets,
    measure_lesions,
    q_values,
    together,
    wilson_interval,
)
from spikingmoe.analysis.effects import compare_answers, mcnemar_p, paired_interval
from spikingmoe.analysis.lesion_picture import lesion_png, shown_effects
from spikingmoe.data.image_data import Split

VARIANTS = {
    "top_k": {"depth": 2, "top_k": 2},
    "image": {"depth": 2, "route_by": "image"},
    "window": {"depth": 2, "hold": "window"},
    "threshold": {"depth": 2, "routing": "threshold"},
    "hierarchical": {"depth": 2, "routing": "hierarchical", "num_experts": 4, "num_groups": 2},
    "expert_choice": {"depth": 2, "routing": "expert_choice"},
    "chain": {"chain": "depth", "chain_length": 2, "shared_experts": 1},
    "chain in time": {"chain": "time", "shared_experts": 1},
    "alternating": {"depth": 2, "mixture_every": 2},
    "feedback": {"depth": 2, "cortical_feedback": True},
    "stages": {"early_depths": (1,), "stem_strides": (1, 1), "num_heads": 1},
    "grouped": {"depth": 2, "dispatch": "grouped", "gate_gradient": "chosen"},
    "ssa": {"depth": 2, "attention": "ssa"},
    "sdsa": {"depth": 2, "attention": "sdsa"},
}
MODELS = {}


def model_of(variant):
    """One model per variant; no test changes it."""
    if variant not in MODELS:
        MODELS[variant] = settled_model(tiny_config(**VARIANTS[variant]))
    return MODELS[variant]


@torch.no_grad()
def run(model, samples=12):
    return model(tiny_images(model.config, samples))


@torch.no_grad()
def silenced_by_weights(model, target):
    """The same lesion in another way: a copy in which weights are zero."""
    model = copy.deepcopy(model)
    named = dict(model.named_modules())

    def still(norm):
        norm.weight.zero_()
        norm.bias.zero_()

    if target.kind in ("expert", "mixture"):
        for mixture, expert in target.experts:
            for link in (named[mixture], *named[mixture].links):
                link.experts.norm2.weight[expert] = 0
                link.experts.norm2.bias[expert] = 0
        for name in target.modules:
            still(named[name].down.norm)
    elif target.kind in ("shared expert", "dense MLP"):
        still(named[target.modules[0]].down.norm)
    elif target.kind == "attention":
        still(named[target.modules[0]].project.norm)
    elif target.kind == "head":
        attention, _, head = target.name.partition(".heads.")
        weight = named[attention].project.linear.weight
        weight.unflatten(1, (model.config.num_heads, -1))[:, int(head)] = 0
    else:
        for block in model.blocks:
            of_this = target.name in ("prompt", f"blocks.{list(model.blocks).index(block)}.prompt")
            if block.moe is not None and of_this:
                for link in (block.moe, *block.moe.links):
                    link.router.from_prompt.weight.zero_()
    return model


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_lesion_is_what_zero_weights_do(variant):
    model = model_of(variant)
    intact = run(model).logits
    moved = set()
    for name, target in list_targets(model).items():
        with lesion(model, [name]) as targets:
            assert [t.name for t in targets] == [name]
            got = run(model)
        expected = run(silenced_by_weights(model, target)).logits
        assert torch.allclose(got.logits, expected, atol=1e-5), name
        if not torch.equal(got.logits, intact):
            moved.add(target.kind)
        for info in got.routing:
            chosen = info.gates.sum((0, 1, 2))
            assert torch.allclose(info.load, chosen / chosen.sum().clamp(min=1))
    assert {"mixture", "expert"} <= moved
    assert torch.equal(run(model).logits, intact)


def test_the_names_that_there_are():
    assert list(list_targets(model_of("alternating"))) == [
        "prompt",
        *(f"blocks.0.{n}" for n in ("attention", "attention.heads.0", "attention.heads.1", "mlp")),
        *(f"blocks.1.{n}" for n in ("attention", "attention.heads.0", "attention.heads.1", "moe")),
        *(f"blocks.1.moe.experts.{e}" for e in range(3)),
    ]
    assert "blocks.0.moe.shared" in list_targets(model_of("chain"))
    feedback = list_targets(model_of("feedback"))
    assert feedback["prompt"].modules == ("blocks.0.prompt", "blocks.1.prompt")
    assert "blocks.1.prompt" in feedback
    assert not any("heads" in name for name in list_targets(model_of("sdsa")))
    plain = settled_model(tiny_config(routing="dense", num_experts=1, attention="none"))
    assert list(list_targets(plain)) == ["blocks.0.mlp"]


def hidden_spikes(model, block=0):
    """(E, T, B, N, F) of a mixture in the masked form."""
    seen = []
    experts = model.blocks[block].moe.experts
    dispatch, experts.dispatch = experts.dispatch, "masked"
    handle = experts.neuron.register_forward_hook(lambda _m, _i, o: seen.append(o.movedim(1, 0)))
    run(model)
    handle.remove()
    experts.dispatch = dispatch
    return seen[-1]


@pytest.mark.parametrize("variant", ["top_k", "window", "threshold"])
def test_silenced_neurons_do_not_spike_and_others_do_not_care(variant):
    model = model_of(variant)
    before = hidden_spikes(model)
    loads = run(model).routing[0].load
    assert (before.sum((1, 2, 3, 4)) > 0).sum() >= 2
    for expert in range(model.config.num_experts):
        with lesion(model, [f"blocks.0.moe.experts.{expert}"]):
            after = hidden_spikes(model)
            gates = run(model).routing[0].gates
        assert not after[expert].any()
        assert not gates[..., expert].any()
        others = [e for e in range(model.config.num_experts) if e != expert]
        assert torch.equal(after[others], before[others])
    assert torch.equal(run(model).routing[0].load, loads)


def test_an_expert_that_nobody_chooses_changes_nothing_at_all():
    model = settled_model(tiny_config(depth=2))
    model.blocks[0].moe.router.homeostatic_bias.copy_(torch.tensor([0.0, -100.0, 0.0]))
    before = run(model)
    assert before.routing[0].load[1] == 0
    for reroute in (False, True):
        with lesion(model, ["blocks.0.moe.experts.1"], reroute=reroute):
            assert torch.equal(run(model).logits, before.logits)


def state_of(model):
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]
    return sum(hooks), {k: v.clone() for k, v in model.state_dict().items()}, model.training


def check_same(model, state):
    hooks, tensors, training = state_of(model)
    assert hooks == state[0] == 0
    assert training == state[2]
    assert all(torch.equal(v, state[1][k]) for k, v in tensors.items())


def test_everything_comes_back():
    model = model_of("top_k")
    state, logits = state_of(model), run(model).logits
    names = ["blocks.*.moe.experts.0", "prompt", "blocks.0.attention", "blocks.1.attention.heads.1"]
    with lesion(model, names, reroute=False):
        inside = run(model).logits
        with lesion(model, ["blocks.1.moe"]):
            assert not torch.equal(run(model).logits, inside)
        assert torch.equal(run(model).logits, inside)
    assert not torch.equal(inside, logits)
    check_same(model, state)
    assert torch.equal(run(model).logits, logits)


def test_everything_comes_back_after_an_exception():
    model = model_of("top_k")
    state, logits = state_of(model), run(model).logits
    with pytest.raises(ValueError, match="images have shape"), lesion(model, ["*.moe", "prompt"]):
        model(torch.zeros(1, 2, 3, 4))
    for targets, reroute in (
        (["blocks.0.moe", "nowhere"], False),
        (["blocks.0.moe.experts.[01]"], True),
    ):
        broken = pytest.raises(ValueError, match=r"unknown|leave re-routing out")
        with broken, lesion(model, targets, reroute=reroute):
            pass
    check_same(model, state)
    assert torch.equal(run(model).logits, logits)


# ---- re-routing


@pytest.mark.parametrize("variant", ["top_k", "image", "chain", "window"])
def test_tokens_go_to_the_runner_up(variant):
    """The gates of the first router, from its scores with one column left out."""
    model = model_of(variant)
    info, bias = run(model).routing[0], model.blocks[0].moe.router.homeostatic_bias
    scores, k = (info.scores + bias).expand_as(info.gates), model.config.top_k
    for expert in range(3):
        with lesion(model, [f"blocks.0.moe.experts.{expert}"], reroute=True):
            gates = run(model).routing[0].gates
        others = [e for e in range(3) if e != expert]
        order = scores[..., others].argsort(dim=-1, descending=True, stable=True)[..., :k]
        expected = torch.zeros_like(gates)
        for row in np.ndindex(*gates.shape[:3]):
            for place in order[row].tolist():
                expected[(*row, others[place])] = 1
        if variant == "window":  # the decision of step 1 holds
            expected[0] = 0
            expected[1:] = expected[1]
        assert torch.equal(gates, expected)
        stayed = info.gates[..., expert] == 0
        assert torch.equal(gates[stayed], info.gates[stayed]), "who chose others keeps them"


def test_rerouting_within_groups():
    model = model_of("hierarchical")  # groups {0, 1} and {2, 3}, one expert each
    before = run(model).routing[0].gates
    with lesion(model, ["blocks.0.moe.experts.2"], reroute=True):
        gates = run(model).routing[0].gates
    expected = before.clone()
    expected[..., 3] += expected[..., 2]
    expected[..., 2] = 0
    assert before[..., 2].any()
    assert torch.equal(gates, expected)
    both = [f"blocks.0.moe.experts.{e}" for e in (2, 3)]
    with lesion(model, both, reroute=True):
        gates = run(model).routing[0].gates
    assert not gates[..., 2:].any()
    assert (gates.sum(-1) == 1).all(), "the other group takes over"


def test_rerouting_that_is_impossible():
    for variant, words in (("threshold", "each expert decides alone"),
                           ("expert_choice", "experts choose")):  # fmt: skip
        one = lesion(model_of(variant), ["blocks.0.moe.experts.1"], reroute=True)
        with pytest.raises(ValueError, match=rf"lesion of blocks\.0\.moe: {words}"), one:
            pass
    two = lesion(model_of("top_k"), [f"blocks.0.moe.experts.{e}" for e in (0, 1)], reroute=True)
    with pytest.raises(ValueError, match=r"top_k=2 exceeds the 1 experts that would be left"), two:
        pass


def test_a_whole_mixture_has_nobody_to_go_to():
    model = model_of("top_k")
    with lesion(model, ["blocks.0.moe"]):
        plain = run(model).logits
    with lesion(model, ["blocks.0.moe"], reroute=True):
        assert torch.equal(run(model).logits, plain)


# ---- names


def test_patterns_and_the_busiest():
    model = model_of("top_k")
    names = [t.name for t in choose_targets(model, ["blocks.*.moe.experts.2", "prompt", "prompt"])]
    assert names == ["blocks.0.moe.experts.2", "blocks.1.moe.experts.2", "prompt"]
    loads = {"blocks.0.moe": np.array([0.2, 0.5, 0.3]), "blocks.1.moe": np.array([0.6, 0.3, 0.1])}
    for pattern, expected in (
        ("blocks.*.moe.experts.busiest", ["blocks.0.moe.experts.1", "blocks.1.moe.experts.0"]),
        ("blocks.0.moe.experts.busiest", ["blocks.0.moe.experts.1"]),
    ):
        assert [t.name for t in choose_targets(model, [pattern], loads)] == expected
    with pytest.raises(ValueError, match=r"no load is known of blocks\.0\.moe"):
        choose_targets(model, ["blocks.*.moe.experts.busiest"])


@pytest.mark.parametrize(
    "name", ["blocks.0.moe.experts.3", "blocks.2.moe", "promt", "", "*.head", "prompt.busiest"]
)
def test_names_that_mean_nothing(name):
    with pytest.raises(ValueError, match="unknown lesion target") as refusal:
        choose_targets(model_of("top_k"), [name])
    message = str(refusal.value)
    assert f"unknown lesion target '{name}'" in message
    assert (
        "(there are: blocks.0.attention, blocks.0.attention.heads.0..1, blocks.0.moe, " in message
    )
    assert "blocks.1.moe.experts.0..2, prompt; * and busiest too)" in message
    assert "\n" not in message
    if name == "promt":
        assert "did you mean 'prompt'?" in message


def test_no_target_at_all():
    with (
        pytest.raises(ValueError, match="no target; name at least one"),
        lesion(model_of("top_k"), []),
    ):
        pass


def test_together_is_all_of_them_at_once():
    model = model_of("alternating")
    names = ["blocks.1.moe.experts.1", "prompt", "blocks.0.mlp", "blocks.0.attention.heads.1"]
    with lesion(model, names):
        expected = run(model).logits
    one = together(choose_targets(model, names))
    with lesion(model, [one]):
        assert torch.equal(run(model).logits, expected)
    assert one.name == " + ".join(names)


# ---- effects


def test_wilson_by_hand():
    # Newcombe 1998, table I: 81 of 263 and 1 of 29; Wilson's score interval
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson_interval(1, 29) == pytest.approx((0.0061, 0.1718), abs=1e-4)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson_interval(20, 20)[1] == 1.0
    assert wilson_interval(0, 0) == (0.0, 1.0)


def test_mcnemar_by_hand():
    assert mcnemar_p(0, 0) == 1.0
    assert mcnemar_p(5, 5) == 1.0
    assert mcnemar_p(9, 1) == pytest.approx(2 * 11 / 1024)
    assert mcnemar_p(1, 9) == mcnemar_p(9, 1)
    assert mcnemar_p(6, 0) == pytest.approx(2 / 64)


def test_paired_interval_by_hand():
    # 8 lost, 2 gained of 98: d = -6 / 100, variance = (11 - 36 / 100) / 100^2
    half = 1.96 * (11 - 0.36) ** 0.5 / 100
    assert paired_interval(8, 2, 98) == pytest.approx((-0.06 - half, -0.06 + half), abs=1e-5)
    low, high = paired_interval(0, 0, 50)
    assert low == -high < 0


def test_q_values_by_hand():
    assert q_values([0.01, 0.02, 0.03, 0.5]) == pytest.approx([0.04, 0.04, 0.04, 0.5])
    assert q_values(np.array([[0.5, 0.01], [0.03, 0.02]])) == pytest.approx(
        np.array([[0.5, 0.04], [0.04, 0.04]])
    )


def effect_by_hand() -> Effect:
    labels = np.array([0, 0, 0, 1, 1])
    before = np.eye(3)[[0, 0, 1, 1, 2]]
    after = np.eye(3)[[0, 2, 0, 1, 0]]  # kept, lost, gained, kept, wrong another way
    return compare_answers("x", labels, before, after, share_of_choices=0.25)


def test_effect_by_hand():
    effect = effect_by_hand()
    assert effect.total.tolist() == [3, 2, 0]
    assert effect.before.tolist() == [2, 1, 0]
    assert effect.after.tolist() == [2, 1, 0]
    assert effect.lost.tolist() == [1, 0, 0]
    assert effect.gained.tolist() == [1, 0, 0]
    assert effect.changed == 3
    assert effect.largest_logit_change == 1.0
    assert effect.accuracy_before == effect.accuracy_after == pytest.approx(0.6)
    assert effect.change == 0
    assert effect.p_value == 1
    assert effect.change_by_class[:2].tolist() == [0, 0]
    assert np.isnan(effect.change_by_class[2])
    assert effect.p_by_class.tolist() == [1, 1, 1]


def split_of(model, samples=40):
    labels = torch.arange(samples) % model.config.num_classes
    return Split(tiny_images(model.config, samples), labels)


def test_measured_lesions():
    model, calls = model_of("top_k"), []
    split = split_of(model)
    targets = choose_targets(model, ["blocks.0.moe.experts.1", "blocks.1.attention", "prompt"])
    state = state_of(model)
    loads = {"blocks.0.moe": np.array([0.2, 0.5, 0.3])}
    effects = measure_lesions(
        model, split, targets, loads=loads, progress=lambda done, total: calls.append((done, total))
    )
    check_same(model, state)
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert [e.share_of_choices for e in effects] == [0.5, None, None]
    with torch.no_grad():
        intact = model(split.images).logits
        for target, effect in zip(targets, effects, strict=True):
            with lesion(model, [target]):
                logits = model(split.images).logits
            was, is_ = (x.argmax(1) == split.labels for x in (intact, logits))
            assert effect.target == target.name
            assert effect.lost.sum() == (was & ~is_).sum()
            assert effect.gained.sum() == (~was & is_).sum()
            assert effect.accuracy_after == pytest.approx(float(is_.float().mean()))
            assert effect.largest_logit_change == pytest.approx(
                float((logits - intact).abs().max())
            )


def test_impossible_rerouting_is_refused_before_anything_is_measured():
    model = model_of("threshold")
    calls = []
    targets = choose_targets(model, ["prompt", "blocks.1.moe.experts.0"])
    handle = model.register_forward_hook(lambda *_: calls.append(1))
    with pytest.raises(ValueError, match="each expert decides alone"):
        measure_lesions(model, split_of(model), targets, reroute=True)
    handle.remove()
    assert calls == []


# ---- the picture


def test_picture():
    assert lesion_png([effect_by_hand()], ["a", "b", "c"]).startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="no effect to show"):
        lesion_png([], ["a"])


def test_picture_of_many_lesions_shows_those_that_change_most():
    draw = np.random.default_rng(0)
    labels, before = np.arange(200) % 40, draw.normal(size=(200, 40))
    effects = [
        compare_answers(
            f"blocks.{i}", labels, before, before + i / 99 * draw.normal(size=(200, 40))
        )
        for i in range(100)
    ]
    rows = shown_effects(effects)
    assert len(rows) == 60
    assert rows == sorted(rows)
    left_out = set(range(100)) - set(rows)
    assert max(effects[i].changed for i in left_out) <= min(effects[i].changed for i in rows)
    assert lesion_png(effects, [f"class {i}" for i in range(40)]).startswith(b"\x89PNG")
