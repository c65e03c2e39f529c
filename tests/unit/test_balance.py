"""Losses and homeostasis that keep a router's choices spread: by hand, by sign, by where they lead."""

import math
from dataclasses import fields

import pytest
import torch
from tiny_models import settled_model, tiny_config, tiny_images

from spikingmoe.config import TrainConfig
from spikingmoe.functional.routing import (
    balance_loss,
    budget_loss,
    entropy_loss,
    expert_load,
    group_homeostatic_step,
    hierarchical_mask,
    homeostatic_step,
    importance_loss,
    orthogonality_loss,
    pass_gradient,
    threshold_homeostatic_step,
    threshold_mask,
    top_k_mask,
    variance_loss,
    z_loss,
)
from spikingmoe.layers.gates import make_gate, open_rate
from spikingmoe.layers.router import Router, RoutingLosses


def table(*rows):
    return torch.tensor(rows, dtype=torch.float64)


def slope(loss, at):
    at = at.clone().requires_grad_()
    loss(at).backward()
    return at.grad


# ---- load


def test_load_adds_up_to_one():
    gates = top_k_mask(torch.randn(4, 3, 7, 5), 2)
    load = expert_load(gates)
    assert float(load.sum()) == pytest.approx(1, abs=1e-6)  # float32
    by_hand = [float(gates[..., e].sum()) / float(gates.sum()) for e in range(5)]
    assert load.tolist() == pytest.approx(by_hand)
    assert expert_load(torch.zeros(2, 3)).tolist() == [0, 0, 0]


def test_load_and_open_rate_by_hand():
    gates = table([1, 0, 1], [0, 0, 1], [1, 0, 0], [0, 0, 0])
    assert expert_load(gates).tolist() == [0.5, 0, 0.5]
    assert open_rate(gates).tolist() == [0.5, 0, 0.5]
    assert open_rate(table([1, 1], [1, 0])).tolist() == [1, 0.5]


# ---- losses by hand


def test_balance_loss_is_one_when_even_and_more_when_not():
    even = torch.full((3, 4, 4), 0.25)
    assert float(balance_loss(even, torch.full((4,), 0.25))) == pytest.approx(1)
    # all tokens on one expert whose probability is 1: E times as much
    sure = table([0, 0, 1, 0], [0, 0, 1, 0])
    assert float(balance_loss(sure, expert_load(sure))) == pytest.approx(4)
    # load (3/4, 1/4), mean probability (0.6, 0.4): 2 (0.45 + 0.1)
    p = table([0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.1, 0.9])
    assert float(balance_loss(p, expert_load(top_k_mask(p, 1)))) == pytest.approx(1.1)
    # sigmoids need not add up to 1: only their shares count
    assert float(balance_loss(p / 3, expert_load(top_k_mask(p, 1)))) == pytest.approx(1.1)


def test_importance_loss_by_hand():
    # sums 1.5 and 0.5: mean 1, variance 1/4
    assert float(importance_loss(table([0.9, 0.1], [0.6, 0.4]))) == pytest.approx(0.25)
    assert float(importance_loss(table([0.9, 0.1], [0.1, 0.9]))) == pytest.approx(0, abs=1e-15)
    # one of four gets everything: mean 1/4, variance 3/16, so E - 1
    assert float(importance_loss(table([0, 1, 0, 0]))) == pytest.approx(3)


def test_z_loss_by_hand():
    assert float(z_loss(torch.zeros(2, 4, dtype=torch.float64))) == pytest.approx(math.log(4) ** 2)
    # e^s sums to 8 and to 2
    scores = table([1, 1, 2, 4], [0.5, 0.5, 0.5, 0.5]).log()
    expected = (math.log(8) ** 2 + math.log(2) ** 2) / 2
    assert float(z_loss(scores)) == pytest.approx(expected)


def test_entropy_loss_by_hand():
    assert float(entropy_loss(torch.full((3, 5), 0.2))) == pytest.approx(1)
    assert float(entropy_loss(torch.eye(4))) == 0
    # of (1/2, 1/4, 1/4) it is 1.5 bits of log2 3
    assert float(entropy_loss(table([0.5, 0.25, 0.25]))) == pytest.approx(1.5 / math.log2(3))
    # each its own yes or no: 1 bit, and 2 - 3/4 log2 3 bits
    binary = entropy_loss(table([0.5, 0.25]), competitive=False)
    assert float(binary) == pytest.approx((1 + 2 - 0.75 * math.log2(3)) / 2)
    assert float(entropy_loss(table([0, 1, 1, 1]), competitive=False)) == 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("competitive", [True, False])
def test_entropy_of_what_is_sure_has_a_finite_slope(dtype, competitive):
    at = torch.tensor([[0.0, 1.0], [1.0, 0.0]], dtype=dtype)
    grad = slope(lambda p: entropy_loss(p, competitive=competitive), at)
    assert torch.isfinite(grad).all()


def test_variance_loss_by_hand():
    # expert 0: 1, 0 (variance 1/4); expert 1: 0.5, 0.5 (variance 0)
    assert float(variance_loss(table([1, 0.5], [0, 0.5]))) == pytest.approx(-0.125)


def test_budget_loss_by_hand():
    gates = table([1, 1, 0], [1, 0, 0])  # 1.5 open in the mean
    assert float(budget_loss(gates, 1.5)) == 0
    assert float(budget_loss(gates, 1.0)) == pytest.approx(0.25)
    assert float(budget_loss(gates, 3.0)) == pytest.approx(0.25)
    assert (slope(lambda g: budget_loss(g, 1.0), gates) > 0).all(), "too many: less"
    assert (slope(lambda g: budget_loss(g, 3.0), gates) < 0).all(), "too few: more"


def test_orthogonality_loss_by_hand():
    # cosines 1/2 (twice), 0 (twice), sqrt(3)/2 (twice)
    outputs = table([2, 0], [0.5, math.sqrt(0.75)], [0, 3])
    expected = (2 * 0.25 + 0 + 2 * 0.75) / 6
    assert float(orthogonality_loss(outputs)) == pytest.approx(expected)
    assert float(orthogonality_loss(torch.eye(4))) == 0
    assert float(orthogonality_loss(torch.ones(3, 5))) == pytest.approx(1)
    # an expert without rows is orthogonal to all, and its slope is finite
    dead = table([1, 1], [0, 0], [1, 1])
    assert float(orthogonality_loss(dead)) == pytest.approx(1 / 3)
    assert torch.isfinite(slope(orthogonality_loss, dead)).all()


# ---- losses by sign


def probability(scores):
    return scores.softmax(-1)


def test_balance_loss_pushes_scores_of_the_busy_expert_down():
    scores = table([1, 0], [1, 0], [1, 0])
    load = expert_load(top_k_mask(scores, 1))
    grad = slope(lambda s: balance_loss(probability(s), load), scores)
    assert (grad[:, 0] > 0).all()
    assert (grad[:, 1] < 0).all()


def test_importance_loss_pushes_likely_experts_down():
    grad = slope(lambda s: importance_loss(probability(s)), table([1, 0], [2, 0.5]))
    assert (grad[:, 0] > 0).all()
    assert (grad[:, 1] < 0).all()


def test_z_loss_pushes_large_scores_down_and_entropy_loss_makes_sure():
    scores = table([3, 1, 0.5])
    assert (slope(z_loss, scores) > 0).all()
    grad = slope(lambda s: entropy_loss(probability(s)), scores)
    assert grad[0, 0] < 0, "the likeliest becomes likelier"
    assert (grad[0, 1:] > 0).all()


def test_variance_loss_drives_rows_apart():
    grad = slope(lambda s: variance_loss(probability(s)), table([1, 0], [0, 1]))
    assert torch.equal(grad.sign(), table([-1, 1], [1, -1]))


def test_orthogonality_loss_turns_outputs_apart():
    outputs = table([1, 0.2], [1, -0.2])
    grad = slope(orthogonality_loss, outputs)
    moved = outputs - 0.1 * grad
    assert orthogonality_loss(moved) < orthogonality_loss(outputs)
    assert grad[0, 1] < 0 < grad[1, 1]


# ---- where the budget leads


def test_the_budget_of_a_router_counts_gates_that_open():
    """Scores near 0 have sigmoids near 1/2 whether a gate opens or not."""
    torch.manual_seed(0)
    config = tiny_config(routing="dynamic", num_experts=4, prompt="none")
    router = Router(config).double()
    router.learned_threshold.data.fill_(-1e-9)  # every gate of the silent token opens
    x = torch.zeros(2, 3, 9, 8, dtype=torch.float64)
    losses = router(x, x, None)[1].losses
    assert float(losses.budget.detach()) == pytest.approx((4 - 1) ** 2)
    losses.budget.backward()
    assert (router.learned_threshold.grad < 0).all(), "thresholds rise"


def test_the_budget_loss_leads_to_the_number_of_experts_asked_for():
    torch.manual_seed(0)
    scores = 0.05 * torch.randn(2000, 4, dtype=torch.float64)
    threshold = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.SGD([threshold], lr=0.02)
    for _ in range(300):
        optimiser.zero_grad()
        shifted = scores - threshold
        gates = pass_gradient(threshold_mask(shifted.detach()), shifted.sigmoid(), "full")
        budget_loss(gates, 1.0).backward()
        optimiser.step()
    opened = threshold_mask(scores - threshold.detach()).sum(-1).mean()
    assert float(opened) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(
    ("options", "free"),
    [
        ({}, False),
        ({"routing": "expert_choice"}, False),
        ({"routing": "hierarchical", "num_experts": 4, "num_groups": 2, "top_k": 2}, False),
        ({"routing": "threshold"}, True),
        ({"routing": "dynamic"}, True),
    ],
)
def test_only_rules_that_leave_the_number_free_have_a_budget_loss(options, free):
    model = settled_model(tiny_config(**options)).train()
    losses = model(tiny_images(model.config, 4)).routing[0].losses
    assert losses.budget.requires_grad is free
    assert free or float(losses.budget) == 0


# ---- losses of a router


def test_each_loss_has_a_weight_and_each_weight_a_loss():
    losses = {field.name for field in fields(RoutingLosses)}
    of_operations = {"synops_weight", "rate_weight"}  # of all neurons, no router's
    weights = {f.name for f in fields(TrainConfig) if f.name.endswith("_weight")} - of_operations
    assert weights == {f"{name}_weight" for name in losses}


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"routing": "threshold"},
        {"routing": "hierarchical", "num_experts": 4, "num_groups": 2},
        {"route_by": "image"},
    ],
)
def test_the_losses_of_a_router_are_those_of_its_scores_without_bias(options):
    model = settled_model(tiny_config(**options)).double().train()
    info = model(tiny_images(model.config, 5).double()).routing[0]
    choose = make_gate(model.config)
    p = choose.probability(info.scores)
    by_hand = {
        "balance": balance_loss(p, info.load),
        "importance": importance_loss(p),
        "z": z_loss(info.scores)
        if options.get("routing") != "hierarchical"
        else z_loss(info.scores[..., :2]) + z_loss(info.scores[..., 2:].unflatten(-1, (2, 2))),
        "entropy": entropy_loss(p, competitive=options.get("routing") != "threshold"),
        "variance": variance_loss(p),
    }
    for name, value in by_hand.items():
        assert float(getattr(info.losses, name).detach()) == pytest.approx(float(value)), name
        assert getattr(info.losses, name).requires_grad, name
    assert 0 < float(info.losses.orthogonality.detach()) < 1
    assert info.losses.orthogonality.requires_grad


@pytest.mark.parametrize("routing", ["threshold", "dynamic"])
def test_losses_are_finite_where_no_gate_opens_at_all(routing):
    model = settled_model(tiny_config(routing=routing)).train()
    router = model.blocks[0].moe.router
    router.homeostatic_bias.fill_(-1e4)
    out = model(tiny_images(model.config, 4))
    info = out.routing[0]
    assert not info.gates.any()
    assert info.load.tolist() == [0, 0, 0]
    losses = [getattr(info.losses, field.name) for field in fields(RoutingLosses)]
    total = out.logits.square().sum() + torch.stack(losses).sum()
    total.backward()
    assert torch.isfinite(total)
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())
    before = router.homeostatic_bias.clone()
    model.adapt(out.routing, 0.25)
    raised = 0.25 if routing == "threshold" else 0.0
    assert torch.equal(router.homeostatic_bias, before + raised), "closed gates become easier"


# ---- homeostasis


def test_homeostatic_step_moves_against_the_load_and_is_centred():
    load = torch.tensor([0.7, 0.2, 0.1, 0.0])  # mean 0.25
    moved = homeostatic_step(torch.zeros(4), load, 0.1)
    # signs -, +, +, + give -0.1, 0.1, 0.1, 0.1; centring subtracts 0.05
    assert moved.tolist() == pytest.approx([-0.15, 0.05, 0.05, 0.05])
    assert float(moved.sum()) == pytest.approx(0, abs=1e-7)
    even = homeostatic_step(torch.tensor([0.3, -0.3]), torch.tensor([0.5, 0.5]), 0.1)
    assert even.tolist() == pytest.approx([0.3, -0.3])


def test_homeostasis_evens_out_a_router_that_always_chose_one_expert():
    choose = make_gate(tiny_config(num_experts=2))
    scores = torch.randn((500, 2), generator=torch.Generator().manual_seed(0)) * 0.1
    scores[:, 0] += 1.0
    bias = torch.zeros(2)
    for _ in range(300):
        gates = choose(scores + bias)
        bias = choose.homeostasis(bias, expert_load(gates), open_rate(gates), 5e-3)
    load = expert_load(choose(scores + bias))
    assert load.tolist() == pytest.approx([0.5, 0.5], abs=0.05)
    assert float(bias[0] - bias[1]) == pytest.approx(-1, abs=0.05)


def test_threshold_step_by_hand():
    moved = threshold_homeostatic_step(
        torch.tensor([1.0, 1.0, 1.0]), torch.tensor([0.5, 0.25, 0.0]), 0.25, 0.125
    )
    assert moved.tolist() == [0.875, 1.0, 1.125]


@pytest.mark.parametrize("k", [1, 3])
def test_homeostasis_of_thresholds_reaches_the_target_rate(k):
    """Each of five experts ends open in k of 5 decisions, whatever its scores look like."""
    choose = make_gate(tiny_config(routing="threshold", num_experts=5, top_k=k))
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn((4000, 5), generator=generator) * torch.linspace(0.1, 1.0, 5)
    scores += torch.linspace(-1, 1, 5)
    bias = torch.zeros(5)
    for _ in range(600):
        gates = choose(scores + bias)
        bias = choose.homeostasis(bias, expert_load(gates), open_rate(gates), 5e-3)
    rates = open_rate(choose(scores + bias))
    # a step of 0.005 is 2 % of the narrowest distribution (0.1 wide)
    assert rates.tolist() == pytest.approx([k / 5] * 5, abs=0.025)


def test_group_step_by_hand():
    load = torch.tensor([0.5, 0.1, 0.4, 0.0, 0.0, 0.0])  # groups 0.6, 0.4, 0
    moved = group_homeostatic_step(torch.zeros(3 + 6), load, 0.3, 3)
    # groups: mean 1/3, signs -, -, +, centred; within: (-, +), (-, +), and a silent group stays
    assert moved.tolist() == pytest.approx([-0.2, -0.2, 0.4, -0.3, 0.3, -0.3, 0.3, 0.0, 0.0])


def test_homeostasis_evens_out_groups_and_their_members():
    options = {"routing": "hierarchical", "num_experts": 6, "num_groups": 3}
    choose = make_gate(tiny_config(**options))
    generator = torch.Generator().manual_seed(0)
    scores = 0.3 * torch.randn((6000, 9), generator=generator)
    scores += torch.tensor([0.6, 0.0, 0.0, 0.5, 0.0, -0.4, 0.0, 0.0, 0.2])
    assert expert_load(hierarchical_mask(scores, 3, 1)).max() > 0.5
    bias = torch.zeros(9)
    for _ in range(400):
        gates = choose(scores + bias)
        bias = choose.homeostasis(bias, expert_load(gates), open_rate(gates), 5e-3)
    load = expert_load(choose(scores + bias))
    assert load.tolist() == pytest.approx([1 / 6] * 6, abs=0.02)


@pytest.mark.parametrize("routing", ["dynamic", "expert_choice", "hash"])
def test_rules_that_need_no_homeostasis_keep_their_bias(routing):
    choose = make_gate(tiny_config(routing=routing, prompt="none"))
    bias = torch.tensor([0.1, 0.0, -0.1])
    busy = torch.tensor([1.0, 0.0, 0.0])
    assert torch.equal(choose.homeostasis(bias, busy, busy, 0.1), bias)
