"""Choosing experts: each rule against a loop over tokens and experts, ties included."""

import itertools
import math

import pytest
import torch
from tiny_models import settled_model, tiny_config, tiny_images

from spikingmoe.functional.routing import (
    add_noise,
    expert_choice_mask,
    hierarchical_mask,
    hierarchical_probability,
    hold_window,
    split_scores,
    threshold_mask,
    top_k_mask,
)
from spikingmoe.layers.router import Router

STEPS, BATCH, TOKENS = 3, 2, 9


def naive_gates(scores, k):
    """1 if fewer than k experts score higher, ties counting for the lower index."""
    gates = []
    for e, score in enumerate(scores):
        beaten_by = sum(
            other > score or (other == score and j < e) for j, other in enumerate(scores)
        )
        gates.append(float(beaten_by < k))
    return gates


def tied_scores(*shape, seed=0):
    """Whole numbers from -2 to 2: ties everywhere."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-2, 3, shape, generator=generator).float()


# ---- top-k


@pytest.mark.parametrize(
    ("scores", "k", "expected"),
    [
        ([0.1, 0.9, 0.5], 1, [0, 1, 0]),
        ([0.1, 0.9, 0.5], 2, [0, 1, 1]),
        ([0.1, 0.9, 0.5], 3, [1, 1, 1]),
        ([0.5, 0.5, 0.5], 1, [1, 0, 0]),
        ([0.5, 0.5, 0.5], 2, [1, 1, 0]),
        ([0.1, 0.7, 0.7, 0.7], 2, [0, 1, 1, 0]),
        ([-3.0, -1.0, -2.0], 1, [0, 1, 0]),
        ([0.0, -0.0], 1, [1, 0]),  # equal, so the lower index
        ([-0.0, 0.0], 1, [1, 0]),
    ],
)
def test_hand_made_scores(scores, k, expected):
    assert top_k_mask(torch.tensor(scores), k).tolist() == expected


@pytest.mark.parametrize(("experts", "k"), [(e, k) for e in range(2, 7) for k in range(1, e + 1)])
def test_against_a_naive_loop_with_many_ties(experts, k):
    scores = tied_scores(2, 3, 50, experts, seed=experts * 10 + k)
    mask = top_k_mask(scores, k)
    assert mask.sum(-1).unique().tolist() == [k]
    for row, gates in zip(
        scores.reshape(-1, experts).tolist(), mask.reshape(-1, experts).tolist(), strict=True
    ):
        assert gates == naive_gates(row, k), row


@pytest.mark.parametrize("k", [1, 7, 63, 64])
def test_the_largest_number_of_experts(k):
    scores = tied_scores(20, 64)
    for row, gates in zip(scores.tolist(), top_k_mask(scores, k).tolist(), strict=True):
        assert gates == naive_gates(row, k)


def test_every_order_of_distinct_scores():
    for scores in itertools.permutations([-1.0, 0.25, 0.5, 2.0]):
        for k in (1, 2, 3, 4):
            assert top_k_mask(torch.tensor(scores), k).tolist() == naive_gates(scores, k)


# ---- threshold


def test_threshold_is_strict():
    scores = torch.tensor([[-1.0, 0.0, -0.0, 1e-38, 5.0]])
    assert threshold_mask(scores).tolist() == [[0, 0, 0, 1, 1]]
    assert threshold_mask(scores.double()).dtype == torch.float64


# ---- expert choice


@pytest.mark.parametrize("capacity", [1, 2, 4, 5])
def test_expert_choice_against_a_loop(capacity):
    """Per expert the tokens with fewer than `capacity` better ones; ties: the first token."""
    scores = tied_scores(2, 3, 5, 4, seed=capacity)
    mask = expert_choice_mask(scores, capacity)
    assert (mask.sum(-2) == capacity).all(), "every expert is equally busy"
    for a, b, e in itertools.product(range(2), range(3), range(4)):
        assert mask[a, b, :, e].tolist() == naive_gates(scores[a, b, :, e].tolist(), capacity)
    if capacity < 5:
        per_token = mask.sum(-1)
        assert per_token.max() > per_token.min(), "tokens get different numbers of experts"


@pytest.mark.parametrize(
    ("experts", "k", "capacity"), [(3, 1, 3), (4, 1, 3), (4, 2, 5), (3, 3, 9), (10, 1, 1)]
)
def test_capacity_is_the_mean_number_of_tokens_rounded_up(experts, k, capacity):
    router = make_router(routing="expert_choice", num_experts=experts, top_k=k)
    assert router.choose.capacity(TOKENS) == capacity == math.ceil(TOKENS * k / experts)
    x, stream, prompt = inputs()
    gates, info = router(x, stream, prompt)
    assert (gates.sum(2) == capacity).all()
    assert info.load.tolist() == pytest.approx([1 / experts] * experts)


def test_expert_choice_does_not_look_at_other_samples_or_steps():
    router = make_router(routing="expert_choice")
    x, stream, prompt = inputs(batch=4)
    gates, _ = router(x, stream, prompt)
    assert not torch.equal(gates[:, 0], gates[:, 1])
    for b in range(4):
        alone, _ = router(x[:, b : b + 1], stream[:, b : b + 1], prompt[:, b : b + 1])
        assert torch.equal(alone[:, 0], gates[:, b])
    for t in range(STEPS):
        alone, _ = router(x[t : t + 1], stream[t : t + 1], prompt[t : t + 1])
        assert torch.equal(alone[0], gates[t])


# ---- hierarchical


@pytest.mark.parametrize(("groups", "size", "k"), [(2, 3, 1), (2, 3, 2), (2, 3, 3), (3, 2, 1)])
def test_hierarchical_against_a_loop(groups, size, k):
    scores = tied_scores(200, groups + groups * size, seed=groups * 10 + k)
    mask = hierarchical_mask(scores, groups, k)
    assert mask.sum(-1).unique().tolist() == [k]
    for row, gates in zip(scores.tolist(), mask.tolist(), strict=True):
        best = naive_gates(row[:groups], 1).index(1)
        expected = [0.0] * (groups * size)
        own = slice(best * size, (best + 1) * size)
        expected[own] = naive_gates(row[groups:][own], k)
        assert gates == expected, row


def test_hierarchical_scores_and_probabilities_by_hand():
    log = math.log
    scores = torch.tensor([log(3.0), 0.0, 0.0, log(4.0), log(2.0), log(3.0)])
    group, expert = split_scores(scores, 2)
    assert group.tolist() == scores[:2].tolist()
    assert expert.tolist() == [scores[2:4].tolist(), scores[4:].tolist()]
    # groups 3/4, 1/4; within 1/5, 4/5 and 2/5, 3/5
    expected = [3 / 20, 12 / 20, 2 / 20, 3 / 20]
    assert hierarchical_probability(scores, 2).tolist() == pytest.approx(expected)


# ---- hold and noise


@pytest.mark.parametrize("step", range(4))
def test_hold_window(step):
    gates = torch.arange(8.0).reshape(4, 2)
    held = hold_window(gates, step)
    expected = [[0.0, 0.0]] * step + [gates[step].tolist()] * (4 - step)
    assert held.tolist() == expected


def test_hold_window_sends_all_gradient_to_its_step():
    gates = torch.rand(4, 3, requires_grad=True)
    hold_window(gates, 1).sum().backward()
    assert gates.grad.tolist() == [[0.0] * 3, [3.0] * 3, [0.0] * 3, [0.0] * 3]


def test_noise_is_normal_times_softplus():
    raw = torch.tensor([-20.0, 0.0, math.log(math.e**3 - 1)], requires_grad=True)
    torch.manual_seed(0)
    noisy = add_noise(torch.zeros(20_000, 3), raw.expand(20_000, 3))
    assert noisy.std(0).tolist() == pytest.approx([0.0, math.log(2), 3.0], rel=0.02, abs=1e-6)
    assert noisy.mean(0).tolist() == pytest.approx([0, 0, 0], abs=0.06)
    torch.manual_seed(0)
    assert torch.equal(noisy, torch.randn(20_000, 3) * torch.nn.functional.softplus(raw))


# ---- the router


def make_router(**options):
    torch.manual_seed(0)
    router = Router(tiny_config(**options)).double()
    with torch.no_grad():
        router.homeostatic_bias.copy_(0.05 * torch.randn_like(router.homeostatic_bias))
    return router.eval()


def inputs(*, batch=BATCH, steps=STEPS, tokens=TOKENS, seed=1):
    """Spikes X, the stream U and the prompt P of `tiny_config`, in float64."""
    torch.manual_seed(seed)
    x = (torch.rand(steps, batch, tokens, 8, dtype=torch.float64) < 0.5).double()
    stream = torch.randn(steps, batch, tokens, 8, dtype=torch.float64)
    prompt = (torch.rand(steps, batch, 5, dtype=torch.float64) < 0.5).double()
    return x, stream, prompt


SOURCES = [
    {},
    {"prompt": "none"},
    {"router_input": "membrane"},
    {"route_by": "image"},
    {"route_by": "image", "router_input": "none"},
    {"route_by": "image", "router_input": "membrane", "prompt": "none"},
]


@pytest.mark.parametrize("options", SOURCES, ids=lambda o: "-".join(o.values()) or "default")
@pytest.mark.parametrize("k", [1, 2, 3])
def test_scores_are_the_equation(options, k):
    """C[t,b,n,e] = sum_m Wp[e,m] P[t,b,m] + sum_d Wx[e,d] X[t,b,n,d] + h[e], by loops."""
    config = tiny_config(num_experts=3, top_k=k, **options)
    router = make_router(num_experts=3, top_k=k, **options)
    x, stream, prompt = inputs()
    gates, info = router(x, stream, prompt if config.has_prompt else None)
    assert gates.shape == (STEPS, BATCH, TOKENS, 3)
    by_image = config.route_by == "image"
    assert info.scores.shape == (STEPS, BATCH, 1 if by_image else TOKENS, 3)
    source = stream if config.router_input == "membrane" else x
    for t, b, n in itertools.product(range(STEPS), range(BATCH), range(TOKENS)):
        scores = torch.zeros(3, dtype=torch.float64)
        if config.has_prompt:
            scores += router.from_prompt.weight @ prompt[t, b]
        if config.router_input != "none":
            seen = sum(source[t, b]) / TOKENS if by_image else source[t, b, n]
            scores += router.from_token.weight @ seen
            if config.router_input == "membrane":
                scores += router.from_token.bias
        told = info.scores[t, b, 0 if by_image else n]
        assert torch.allclose(told, scores, atol=1e-12), "scores are told without the bias"
        assert gates[t, b, n].tolist() == naive_gates((told + router.homeostatic_bias).tolist(), k)
    if by_image:
        assert (gates == gates[:, :, :1]).all()
    assert not info.gates.requires_grad
    assert not info.scores.requires_grad


def test_one_gate_per_image_is_decided_by_the_mean_over_its_tokens():
    by_token, by_image = make_router(), make_router(route_by="image")
    by_image.load_state_dict(by_token.state_dict())
    x, stream, prompt = inputs()
    mean = x.mean(2, keepdim=True)
    alone, _ = by_token(mean, mean, prompt)
    gates, _ = by_image(x, stream, prompt)
    assert torch.equal(gates, alone.expand_as(gates))


@pytest.mark.parametrize("routing", ["threshold", "dynamic"])
def test_threshold_routers_open_any_number(routing):
    router = make_router(routing=routing, num_experts=4)
    if routing == "dynamic":
        router.learned_threshold.data.copy_(torch.tensor([0.3, -0.3, 0.0, 0.1]))
    x, stream, prompt = inputs()
    gates, info = router(x, stream, prompt)
    for t, b, n in itertools.product(range(STEPS), range(BATCH), range(TOKENS)):
        score = router.from_prompt.weight @ prompt[t, b] + router.from_token.weight @ x[t, b, n]
        limit = router.learned_threshold if routing == "dynamic" else torch.zeros(4)
        opens = score + router.homeostatic_bias > limit
        assert gates[t, b, n].tolist() == opens.double().tolist()
    assert {0, 1, 2, 3} <= set(gates.sum(-1).unique().int().tolist())
    assert info.open_rate.tolist() == pytest.approx(gates.detach().mean((0, 1, 2)).tolist())


@pytest.mark.parametrize("gradient", ["full", "chosen", "margin"])
def test_the_learned_threshold_gets_the_gradient_of_minus_the_score(gradient):
    router = make_router(routing="dynamic", num_experts=4, gate_gradient=gradient).train()
    x, stream, prompt = inputs()
    gates, info = router(x, stream, prompt)
    weights = torch.randn_like(gates)
    (gates * weights).sum().backward()
    p = (info.scores + router.homeostatic_bias).sigmoid()
    counted = weights if gradient == "full" else weights * info.gates
    expected = -(p * (1 - p) * counted).sum((0, 1, 2))
    assert torch.allclose(router.learned_threshold.grad, expected)
    router.adapt(info, 0.1)
    assert torch.equal(
        router.homeostatic_bias, make_router(routing="dynamic", num_experts=4).homeostatic_bias
    ), "its thresholds are learned, not homeostatic"


@pytest.mark.parametrize("routing", ["top_k", "noisy_top_k", "threshold", "expert_choice", "hash"])
@pytest.mark.parametrize("step", [0, 1, 2])
def test_held_gates_are_the_decision_of_one_step(routing, step):
    options = {"routing": routing, "prompt": "none", "num_experts": 4}
    free = make_router(**options)
    held = make_router(**options, hold="window", hold_step=step)
    x, stream, _ = inputs()
    decided, _ = free(x, stream, None)
    gates, info = held(x, stream, None)
    assert not gates[:step].any()
    for t in range(step, STEPS):
        assert torch.equal(gates[t], decided[step])
    # rates count decisions, not the silent steps before them
    assert info.open_rate.tolist() == pytest.approx(decided[step].mean((0, 1)).tolist())
    assert info.load.tolist() == pytest.approx(
        (decided[step].sum((0, 1)) / decided[step].sum()).tolist()
    )


def test_noise_is_there_while_training_alone_and_its_scale_is_learned():
    plain = make_router(num_experts=4)
    noisy = make_router(num_experts=4, routing="noisy_top_k")
    noisy.load_state_dict(plain.state_dict(), strict=False)
    x, stream, prompt = inputs()
    expected, _ = plain(x, stream, prompt)
    assert torch.equal(noisy(x, stream, prompt)[0], expected)
    noisy.train()
    gates, info = noisy(x, stream, prompt)
    assert not torch.equal(gates, expected), "noise of size softplus(0) changes some choices"
    assert not torch.equal(gates, noisy(x, stream, prompt)[0])
    assert torch.equal(info.scores, plain(x, stream, prompt)[1].scores), "told without noise"
    (gates * torch.randn_like(gates)).sum().backward()
    assert noisy.noise_scale.weight.grad.abs().max() > 1e-4
    assert noisy.noise_scale.bias.grad.abs().max() > 1e-4
    # by hand: raw scale -30 is no noise
    noisy.noise_scale.bias.data.fill_(-30.0)
    assert torch.equal(noisy(x, stream, prompt)[0], expected)


def test_hash_is_frozen_and_a_function_of_the_token():
    router = make_router(routing="hash", prompt="none", num_experts=4).train()
    assert [p.requires_grad for p in router.parameters()] == [False]
    x, stream, _ = inputs()
    gates, info = router(x.requires_grad_(), stream, None)
    chosen = {}
    for token, gate in zip(x.detach().flatten(0, 2).tolist(), gates.flatten(0, 2), strict=True):
        expert = int(gate.argmax())
        assert chosen.setdefault(tuple(token), expert) == expert
    assert len(set(chosen.values())) >= 3, "the hash tells tokens apart"
    before = router.homeostatic_bias.clone()
    router.adapt(info, 0.1)
    assert torch.equal(router.homeostatic_bias, before)


def test_a_hash_does_not_change_in_training():
    config = tiny_config(routing="hash", prompt="none")
    model = settled_model(config).train()
    router = model.blocks[0].moe.router
    before = [t.clone() for t in router.state_dict().values()]
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    out = model(tiny_images(config, 8))
    out.logits.square().sum().backward()
    optimiser.step()
    model.adapt(out.routing, 0.1)
    assert all(torch.equal(a, b) for a, b in zip(before, router.state_dict().values(), strict=True))
    assert not torch.equal(model.head.weight, settled_model(config).head.weight)


@pytest.mark.parametrize("routing", ["top_k", "threshold", "expert_choice", "hierarchical"])
@pytest.mark.parametrize("gradient", ["full", "chosen", "margin"])
def test_temperature_changes_gradients_but_no_choice(routing, gradient):
    if routing == "threshold" and gradient == "margin":
        gradient = "chosen"
    groups = 2 if routing == "hierarchical" else 1
    router = make_router(
        routing=routing, gate_gradient=gradient, num_experts=4, num_groups=groups
    ).train()
    x, stream, prompt = inputs()
    results = []
    for temperature in (1.0, 4.0):
        router.zero_grad()
        router.choose.temperature = temperature
        gates, info = router(x, stream, prompt)
        weights = torch.linspace(-1, 1, gates.numel(), dtype=torch.float64).view_as(gates)
        (gates * weights).sum().backward()
        results.append((gates.detach(), info.losses, router.from_token.weight.grad.clone()))
    (cold, cold_losses, cold_gradient), (warm, warm_losses, warm_gradient) = results
    assert torch.equal(cold, warm)
    assert not torch.allclose(cold_gradient, warm_gradient)
    assert warm_losses.entropy > cold_losses.entropy, "warmer is blinder"
    assert torch.equal(warm_losses.z, cold_losses.z), "of the scores themselves"


def test_the_model_sets_the_temperature_of_every_gate():
    model = settled_model(tiny_config(depth=2, chain="depth", chain_length=2))
    model.set_temperature(2.5)
    assert [router.choose.temperature for router in model.routers()] == [2.5] * 4


def test_the_bias_changes_choices_and_is_no_parameter():
    router = make_router().train()
    router.homeostatic_bias.copy_(torch.tensor([0.0, 0.0, 1e6]))
    gates, info = router(*inputs())
    assert gates[..., 2].all()
    assert info.load.tolist() == [0, 0, 1]
    assert "homeostatic_bias" not in dict(router.named_parameters())
    # the losses see the scores without the bias
    assert float(info.losses.entropy.detach()) > 0.1
    assert not info.gates.requires_grad
    assert gates.requires_grad


@pytest.mark.parametrize(
    ("options", "open_at_once", "channels"),
    [
        ({"top_k": 2}, 2, 4),
        ({"routing": "threshold"}, 4, 4),
        ({"routing": "dynamic"}, 4, 4),
        ({"routing": "expert_choice"}, 4, 4),
        ({"routing": "hierarchical", "num_groups": 2, "top_k": 2}, 2, 6),
    ],
)
def test_what_a_gate_says_of_itself(options, open_at_once, channels):
    router = make_router(num_experts=4, **options)
    assert (router.choose.max_open, router.choose.score_channels) == (open_at_once, channels)
    gates, info = router(*inputs())
    assert gates.sum(-1).max() <= open_at_once
    assert info.scores.shape[-1] == channels == len(router.homeostatic_bias)
