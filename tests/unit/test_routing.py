"""Choosing experts: hand-made scores, ties, gradients, load and balance."""

import itertools

import pytest
import torch
from tiny_models import tiny_config

from spikingmoe.functional.routing import (
    entropy_loss,
    expert_load,
    hold_window,
    homeostatic_step,
    load_balance_loss,
    top_k_gate,
    top_k_mask,
)
from spikingmoe.layers.router import Router


def naive_gates(scores, k):
    """1 if fewer than k experts score higher, ties counting for the lower index."""
    gates = []
    for e, score in enumerate(scores):
        beaten_by = sum(
            other > score or (other == score and j < e) for j, other in enumerate(scores)
        )
        gates.append(float(beaten_by < k))
    return gates


@pytest.mark.parametrize(
    ("scores", "k", "expected"),
    [
        ([0.1, 0.9, 0.5], 1, [0, 1, 0]),
        ([0.1, 0.9, 0.5], 2, [0, 1, 1]),
        ([0.5, 0.5, 0.5], 1, [1, 0, 0]),
        ([0.5, 0.5, 0.5], 2, [1, 1, 0]),
        ([0.1, 0.7, 0.7, 0.7], 2, [0, 1, 1, 0]),
        ([-3.0, -1.0, -2.0], 1, [0, 1, 0]),
        ([0.0, -0.0], 1, [1, 0]),  # equal, so the lower index
    ],
)
def test_hand_made_scores(scores, k, expected):
    assert top_k_mask(torch.tensor(scores), k).tolist() == expected


@pytest.mark.parametrize(("experts", "k"), [(e, k) for e in range(2, 7) for k in range(1, e)])
def test_against_a_naive_loop_with_many_ties(experts, k):
    generator = torch.Generator().manual_seed(experts * 10 + k)
    scores = torch.randint(-2, 3, (2, 3, 50, experts), generator=generator).float()
    mask = top_k_mask(scores, k)
    assert mask.sum(-1).unique().tolist() == [k]
    for row, gates in zip(
        scores.reshape(-1, experts).tolist(), mask.reshape(-1, experts).tolist(), strict=True
    ):
        assert gates == naive_gates(row, k), row


def test_every_order_of_distinct_scores():
    for scores in itertools.permutations([-1.0, 0.25, 0.5, 2.0]):
        for k in (1, 2, 3):
            assert top_k_mask(torch.tensor(scores), k).tolist() == naive_gates(scores, k)


def test_gate_is_binary_forward_and_softmax_backward():
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn((4, 5, 6), generator=generator, dtype=torch.float64)
    weights = torch.randn((4, 5, 6), generator=generator, dtype=torch.float64)
    through_gate, through_softmax = scores.clone().requires_grad_(), scores.clone().requires_grad_()
    gates = top_k_gate(through_gate, 2)
    assert torch.equal(gates, top_k_mask(scores, 2))
    (gates * weights).sum().backward()
    (through_softmax.softmax(-1) * weights).sum().backward()
    assert torch.equal(through_gate.grad, through_softmax.grad)
    assert through_gate.grad.abs().min() > 0, "experts that were not chosen have a gradient too"


def test_large_scores_stay_binary():
    scores = torch.tensor([[1e30, -1e30, 0.0]], requires_grad=True)
    assert top_k_gate(scores, 1).tolist() == [[1, 0, 0]]


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


def test_load_adds_up_to_one():
    gates = top_k_mask(torch.randn(4, 3, 7, 5), 2)
    load = expert_load(gates)
    assert float(load.sum()) == pytest.approx(1, abs=1e-6)  # float32
    by_hand = [float(gates[..., e].sum()) / float(gates.sum()) for e in range(5)]
    assert load.tolist() == pytest.approx(by_hand)
    assert expert_load(torch.zeros(2, 3)).tolist() == [0, 0, 0]


def test_balance_loss_is_one_when_even_and_more_when_not():
    even_gates = torch.eye(4)[None].repeat(3, 1, 1)
    assert float(load_balance_loss(torch.zeros(3, 4, 4), even_gates)) == pytest.approx(1)
    # All tokens on one expert whose probability is 1: E times as much.
    scores = torch.zeros(10, 4)
    scores[:, 2] = 100.0
    assert float(load_balance_loss(scores, top_k_mask(scores, 1))) == pytest.approx(4)
    # load (3/4, 1/4), mean probability (p, 1 - p): 2 (3/4 p + 1/4 (1 - p)) = 1/2 + p
    scores = torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]])
    high = float(torch.tensor(1.0).sigmoid())
    p = (3 * high + 1 - high) / 4
    assert float(load_balance_loss(scores, top_k_mask(scores, 1))) == pytest.approx(0.5 + p)


def test_balance_loss_pushes_scores_of_the_busy_expert_down():
    scores = torch.tensor([[1.0, 0.0]] * 4, requires_grad=True)
    load_balance_loss(scores, top_k_mask(scores.detach(), 1)).backward()
    assert (scores.grad[:, 0] > 0).all()
    assert (scores.grad[:, 1] < 0).all()


def test_entropy_loss_ends():
    assert float(entropy_loss(torch.zeros(3, 5))) == pytest.approx(1)
    sure = torch.zeros(3, 5)
    sure[:, 1] = 1000.0
    assert float(entropy_loss(sure)) == 0
    assert 0 < float(entropy_loss(torch.randn(3, 5))) < 1


def test_homeostatic_step_moves_against_the_load_and_is_centred():
    load = torch.tensor([0.7, 0.2, 0.1, 0.0])  # mean 0.25
    moved = homeostatic_step(torch.zeros(4), load, 0.1)
    # signs -, +, +, + give -0.1, 0.1, 0.1, 0.1; centring subtracts 0.05
    assert moved.tolist() == pytest.approx([-0.15, 0.05, 0.05, 0.05])
    assert float(moved.sum()) == pytest.approx(0, abs=1e-7)
    even = homeostatic_step(torch.tensor([0.3, -0.3]), torch.tensor([0.5, 0.5]), 0.1)
    assert even.tolist() == pytest.approx([0.3, -0.3])


def test_homeostasis_evens_out_a_router_that_always_chose_one_expert():
    router = Router(tiny_config(num_experts=2, top_k=1))
    scores = torch.randn((500, 2), generator=torch.Generator().manual_seed(0)) * 0.1
    scores[:, 0] += 1.0
    for _ in range(300):
        router.adapt(expert_load(top_k_mask(scores + router.homeostatic_bias, 1)), rate=5e-3)
    load = expert_load(top_k_mask(scores + router.homeostatic_bias, 1))
    assert load.tolist() == pytest.approx([0.5, 0.5], abs=0.05)
    assert float(router.homeostatic_bias[0] - router.homeostatic_bias[1]) == pytest.approx(
        -1, abs=0.05
    )


def test_the_bias_changes_choices_and_is_no_parameter():
    torch.manual_seed(0)
    config = tiny_config(num_experts=3, top_k=1)
    router = Router(config)
    x = (torch.rand(3, 2, 9, config.embed_dim) < 0.5).float()
    prompt = (torch.rand(3, 2, config.prompt_width) < 0.5).float()
    router.homeostatic_bias.copy_(torch.tensor([0.0, 0.0, 1e6]))
    gates, info = router(x, prompt)
    assert gates[..., 2].all()
    assert info.load.tolist() == [0, 0, 1]
    assert "homeostatic_bias" not in dict(router.named_parameters())
    # the losses see the scores without the bias
    assert float(info.entropy_loss.detach()) > 0.1
    assert not info.gates.requires_grad
    assert gates.requires_grad


def test_scores_are_the_equation():
    """C[t,b,n,e] = sum_m Wp[e,m] P[t,b,m] + sum_d Wx[e,d] X[t,b,n,d] + h[e], by loops."""
    torch.manual_seed(1)
    config = tiny_config(num_experts=3, top_k=2)
    router = Router(config).double()
    router.homeostatic_bias.copy_(torch.tensor([0.3, -0.2, -0.1]))
    x = (torch.rand(2, 2, 4, config.embed_dim) < 0.5).double()
    prompt = (torch.rand(2, 2, config.prompt_width) < 0.5).double()
    gates, _ = router(x, prompt)
    for t, b, n in itertools.product(range(2), range(2), range(4)):
        scores = [
            (
                router.from_prompt.weight[e] @ prompt[t, b]
                + router.from_token.weight[e] @ x[t, b, n]
                + router.homeostatic_bias[e]
            ).item()
            for e in range(3)
        ]
        assert gates[t, b, n].tolist() == naive_gates(scores, 2)
