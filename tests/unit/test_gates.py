"""How gradients pass through gates that are 0 or 1: by hand and by finite differences."""

import pytest
import torch
from tiny_models import tiny_config

from spikingmoe.functional.routing import (
    expert_choice_margin,
    expert_choice_mask,
    hierarchical_margin,
    hierarchical_mask,
    pass_gradient,
    threshold_mask,
    top_k_margin,
    top_k_mask,
)
from spikingmoe.layers.gates import make_gate

ROWS, TOKENS = 6, 5
RULES = {
    "top_k": {"num_experts": 4},
    "top_2": {"num_experts": 4, "top_k": 2},
    "threshold": {"routing": "threshold", "num_experts": 4},
    "dynamic": {"routing": "dynamic", "num_experts": 4},
    "expert_choice": {"routing": "expert_choice", "num_experts": 4},
    "hierarchical": {"routing": "hierarchical", "num_experts": 6, "num_groups": 2},
    "hierarchical_2": {"routing": "hierarchical", "num_experts": 6, "num_groups": 2, "top_k": 2},
}
THRESHOLDS = ("threshold", "dynamic")
TEMPERATURE = 1.5


def gate(rule, gradient, **options):
    """The gate of a rule at a temperature that is not 1."""
    made = make_gate(tiny_config(gate_gradient=gradient, **RULES[rule], **options))
    made.temperature = TEMPERATURE
    return made


def scores_of(made, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (1, ROWS, TOKENS, made.score_channels)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def softmax(values):
    exponentials = (values / TEMPERATURE).exp()
    return exponentials / exponentials.sum(-1, keepdim=True)


def sigmoid(values):
    return 1 / (1 + (-values / TEMPERATURE).exp())


def lead(scores, mask):
    """Row by row: the score less the best one that lost."""
    rows = scores.reshape(-1, scores.shape[-1])
    chosen = mask.reshape(-1, scores.shape[-1]).bool()
    led = [row - row[~own].max() for row, own in zip(rows, chosen, strict=True)]
    return torch.stack(led).view_as(scores)


def soft_form(rule, gradient, scores, mask):
    """What the gradient is said to be that of, written down once more."""
    groups, experts = scores[..., :2], scores[..., 2:].unflatten(-1, (2, -1))
    if gradient == "margin" and rule not in THRESHOLDS:  # there the score is the lead
        if rule.startswith("hierarchical"):
            group_mask = mask.unflatten(-1, (2, -1)).amax(-1)
            k = 2 if rule.endswith("2") else 1
            within_mask = torch.zeros_like(experts)
            within_mask.scatter_(-1, experts.topk(k, dim=-1).indices, 1.0)
            of_group = sigmoid(lead(groups, group_mask))[..., None]
            return (of_group * sigmoid(lead(experts, within_mask))).flatten(-2)
        if rule == "expert_choice":
            return sigmoid(lead(scores.mT, mask.mT)).mT
        return sigmoid(lead(scores, mask))
    if rule in THRESHOLDS:
        return sigmoid(scores)
    if rule.startswith("hierarchical"):
        return (softmax(groups)[..., None] * softmax(experts)).flatten(-2)
    return softmax(scores)


def gradient_of(made, scores, weights):
    scores = scores.clone().requires_grad_()
    gates = made(scores)
    if not gates.requires_grad:
        return torch.zeros_like(scores)
    (gates * weights).sum().backward()
    return scores.grad


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("gradient", ["full", "chosen", "margin"])
def test_gradients_are_the_slopes_of_the_soft_form(rule, gradient):
    """Central differences with a step of 1e-6 in float64: errors about 1e-10."""
    made = gate(rule, gradient)
    scores = scores_of(made)
    mask = made.mask(scores)
    weights = torch.randn(mask.shape, generator=torch.Generator().manual_seed(1)).double()
    counted = weights if gradient == "full" else weights * mask
    got = gradient_of(made, scores, weights)
    step, flat = 1e-6, scores.flatten()
    for index in range(0, len(flat), 3):
        ends = []
        for sign in (1, -1):
            moved = flat.clone()
            moved[index] += sign * step
            moved = moved.view_as(scores)
            assert torch.equal(made.mask(moved), mask), "the step must not change the choice"
            ends.append((soft_form(rule, gradient, moved, mask) * counted).sum())
        slope = (ends[0] - ends[1]) / (2 * step)
        assert got.flatten()[index].item() == pytest.approx(slope.item(), abs=1e-8)
    assert got.abs().max() > 1e-3


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("gradient", ["full", "chosen", "margin", "none"])
def test_what_unchosen_experts_would_have_said_counts_for_full_alone(rule, gradient):
    made = gate(rule, gradient)
    scores = scores_of(made)
    closed = made.mask(scores) == 0
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(closed.shape, generator=generator, dtype=torch.float64)
    other = torch.where(closed, 1e3 * weights + 7, weights)
    same = torch.equal(gradient_of(made, scores, weights), gradient_of(made, scores, other))
    assert same is (gradient != "full")


@pytest.mark.parametrize("rule", RULES)
def test_without_a_gradient_the_gate_is_a_constant(rule):
    made = gate(rule, "none")
    gates = made(scores_of(made).requires_grad_())
    assert not gates.requires_grad
    assert gates.any()


def test_pass_gradient_by_hand():
    """d gate = d p for all, or for the open ones, with p = softmax(0, log 3) = (1/4, 3/4)."""
    start = torch.tensor([[1.0, 3.0]], dtype=torch.float64).log()
    mask, weights = torch.tensor([[0.0, 1.0]]).double(), torch.tensor([[5.0, 2.0]]).double()
    # dp1/ds1 = 1/4 * 3/4 = 3/16 = -dp0/ds1
    expected = {"full": [[9 / 16, -9 / 16]], "chosen": [[-6 / 16, 6 / 16]]}
    for gradient, slopes in expected.items():
        scores = start.clone().requires_grad_()
        (pass_gradient(mask, scores.softmax(-1), gradient) * weights).sum().backward()
        assert torch.allclose(scores.grad, torch.tensor(slopes).double()), gradient


def test_the_margin_moves_the_winner_against_the_best_loser_alone():
    """Scores 2, 1, 0, one winner: d/ds sigmoid(2 - 1) is s (1 - s) for the winner, minus it for 1."""
    made = make_gate(tiny_config(gate_gradient="margin"))
    scores = torch.tensor([[[[2.0, 1.0, 0.0]]]], dtype=torch.float64, requires_grad=True)
    made(scores)[..., 0].sum().backward()
    s = torch.tensor(1.0).double().sigmoid()
    slope = float(s * (1 - s))
    assert scores.grad.flatten().tolist() == pytest.approx([slope, -slope, 0.0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("gradient", ["full", "chosen", "margin", "none"])
@pytest.mark.parametrize("size", [1.0, 1e4, 1e30])
def test_forward_is_exactly_binary_whatever_the_scores(dtype, rule, gradient, size):
    made = gate(rule, gradient)
    scores = (size * scores_of(made)).to(dtype).requires_grad_()
    gates = made(scores)
    assert gates.dtype == dtype
    assert torch.equal(gates, made.mask(scores.detach()))
    assert set(gates.detach().flatten().tolist()) == {0.0, 1.0}
    if gates.requires_grad:
        gates.sum().backward()
        assert torch.isfinite(scores.grad).all()


@pytest.mark.parametrize(
    "options",
    [
        {"top_k": 3},
        {"routing": "noisy_top_k", "top_k": 3},
        {"routing": "expert_choice", "top_k": 3},
        {"routing": "hierarchical", "num_experts": 4, "num_groups": 2, "top_k": 2},
    ],
)
def test_where_nobody_loses_the_margin_has_no_slope(options):
    """All experts chosen, or all tokens: no distance to a loser, and no infinity either."""
    made = make_gate(tiny_config(gate_gradient="margin", **options))
    scores = scores_of(made).requires_grad_()
    gates = made(scores)
    (gates * torch.randn_like(gates)).sum().backward()
    assert torch.isfinite(scores.grad).all()
    if made.score_channels == made.experts:
        assert gates.all()
        assert not scores.grad.any()
    else:
        assert scores.grad[..., :2].any(), "groups still compete"
        assert not scores.grad[..., 2:].any()


def test_margins_by_hand():
    scores = torch.tensor([3.0, -1.0, 2.0, 0.5])
    assert top_k_margin(scores, top_k_mask(scores, 2)).tolist() == [2.5, -1.5, 1.5, 0.0]
    assert top_k_margin(scores, top_k_mask(scores, 4)).tolist() == [float("inf")] * 4
    tokens = torch.tensor([[1.0, 5.0], [4.0, 2.0], [2.0, 3.0]])
    mask = expert_choice_mask(tokens, 1)
    assert expert_choice_margin(tokens, mask).tolist() == [[-1, 2], [2, -1], [0, 0]]
    grouped = torch.tensor([1.0, 4.0, 3.0, 0.0, 7.0, 5.0])
    assert hierarchical_mask(grouped, 2, 1).tolist() == [0, 0, 1, 0]
    group, within = hierarchical_margin(grouped, 2, 1)
    assert group.tolist() == [0, 0, 3, 3]
    assert within.tolist() == [3, 0, 2, 0]
    _, all_of_group = hierarchical_margin(grouped, 2, 2)
    assert all_of_group.tolist() == [float("inf")] * 4


def test_without_losers_the_margin_has_no_gradient_of_its_own():
    """All of a group's experts are taken: the group's lead alone decides, at its full slope."""
    scores = torch.tensor([1.0, 4.0, 3.0, 0.0, 7.0, 5.0], requires_grad=True)
    made = make_gate(
        tiny_config(
            routing="hierarchical", num_experts=4, num_groups=2, top_k=2, gate_gradient="margin"
        )
    )
    gates = made(scores)
    assert gates.tolist() == [0, 0, 1, 1]
    gates.sum().backward()
    slope = float(torch.tensor(3.0).sigmoid() * torch.tensor(-3.0).sigmoid())
    expected = [-2 * slope, 2 * slope, 0, 0, 0, 0]
    assert scores.grad.tolist() == pytest.approx(expected)


def test_no_open_gate_at_all_is_no_trouble():
    made = gate("threshold", "chosen")
    scores = (-scores_of(made).abs()).requires_grad_()
    assert not threshold_mask(scores.detach()).any()
    gates = made(scores)
    gates.sum().backward()
    assert not gates.any()
    assert not scores.grad.any()
