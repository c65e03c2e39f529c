"""The fused experts in float32 against the masked form in float64: values, gradients, statistics."""

import copy

import pytest
import torch
from kernel_cases import (
    assert_near,
    constants,
    first_clear_seed,
    margin,
    needs_kernels,
    plain_lif,
)

from spikingmoe.config import ModelConfig
from spikingmoe.functional.dispatch import plan_dispatch
from spikingmoe.kernels import Moments, fused_expert_lif
from spikingmoe.layers.expert import Experts
from spikingmoe.layers.gated_norm import MIN_ROWS

pytestmark = needs_kernels
FLOAT32 = 2e-5  # of the largest value: sums of float32 terms in another order
DIM, WIDTH = 5, 37


def make_experts(experts, seed, dispatch, **options):
    config = ModelConfig(
        num_experts=experts,
        embed_dim=DIM,
        num_heads=1,
        expert_width=WIDTH,
        routing="threshold",
        gate_gradient="chosen",
        dispatch=dispatch,
        **options,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = Experts(config)
        for norm in (module.norm1, module.norm2):
            norm.weight.data.uniform_(0.8, 1.6)
            norm.bias.data.uniform_(-0.2, 0.8)
            norm.running_mean.uniform_(-0.3, 0.3)
            norm.running_var.uniform_(0.2, 0.6)
    return module


def make_spikes(mask, seed):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(*mask.shape[:3], DIM, generator=generator) < 0.4).float()


def step(experts, x, mask):
    """Everything that can be compared, of one training (or evaluation) step; and which kernels ran."""
    x = x.clone().requires_grad_()
    soft = torch.rand(mask.shape, generator=torch.Generator().manual_seed(5)).to(x)
    soft.requires_grad_()
    gates = mask.to(x) * (1 + (soft - soft.detach()))
    out, mean = experts(x, gates)
    generator = torch.Generator().manual_seed(6)
    weights = [torch.randn(t.shape, generator=generator).to(t) for t in (out, mean)]
    (out * weights[0]).sum().add((mean * weights[1]).sum()).backward()
    found = {"out": out, "mean outputs": mean, "x.grad": x.grad, "gates.grad": soft.grad}
    found |= {f"{name}.grad": p.grad for name, p in experts.named_parameters()}
    for norm in ("norm1", "norm2"):
        buffers = getattr(experts, norm).named_buffers()
        found |= {f"{norm}.{name}": b.clone() for name, b in buffers}
    return {k: v.detach() for k, v in found.items()}


def clear_case(mask, training, **options):
    """Masked float64 experts and spikes whose membranes stay clear of the threshold."""

    def draw(seed):
        experts = make_experts(mask.shape[-1], seed, "masked", **options).double().train(training)
        return experts, make_spikes(mask, seed).double()

    def nearest(seed):
        experts, x = draw(seed)
        seen = []
        experts.neuron.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
        experts(x, mask.double())
        return margin(seen[0], experts.neuron.constants)

    return draw(first_clear_seed(nearest))


def compare(mask, *, training=True, **options):
    experts, x = clear_case(mask, training, **options)
    fused = copy.deepcopy(experts).float()
    fused.dispatch = "grouped"
    expected, found = step(experts, x, mask), step(fused, x.float(), mask)
    for name, value in expected.items():
        assert found[name].dtype == torch.float32
        if value.any():
            assert_near(found[name], value, FLOAT32, name)
        else:
            assert not found[name].any(), name
    assert expected["out"].any()
    assert expected["gates.grad"].any()
    return found


def top_k(shape, experts, k, seed=1):
    """(T, B, N, E): each token chooses k experts at each step."""
    scores = torch.rand(*shape, experts, generator=torch.Generator().manual_seed(seed))
    return torch.zeros_like(scores).scatter_(-1, scores.topk(k).indices, 1.0)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("surrogate", ["atan", "fast_sigmoid", "sigmoid"])
@pytest.mark.parametrize("detach_reset", [False, True])
def test_top_1_at_each_step(training, surrogate, detach_reset):
    mask = top_k((4, 3, 9), 4, 1)
    compare(mask, training=training, surrogate=surrogate, detach_reset=detach_reset)


@pytest.mark.parametrize("training", [True, False])
def test_two_experts_of_five(training):
    compare(top_k((6, 3, 7), 5, 2), training=training)


def test_the_fused_kernels_run(monkeypatch):
    """Grouped float32 goes through them, float64 does not: the comparison compares two things."""
    from spikingmoe.layers import expert

    calls = []

    def keep(*args):
        calls.append(args[0].dtype)
        return fused_expert_lif(*args)

    monkeypatch.setattr(expert, "fused_expert_lif", keep)
    compare(top_k((2, 3, 9), 2, 1))
    assert calls == [torch.float32]


@pytest.mark.parametrize("first", [0, 2])
def test_held_gates(first):
    """The decision of one step for the window; none before step `first`."""
    mask = top_k((1, 4, 8), 3, 1).expand(4, 4, 8, 3).clone()
    mask[:first] = 0.0
    compare(mask)


def test_gaps():
    """All tokens choose expert 0 at steps 0 and 3, expert 1 at 1, 2 and 5 of 6."""
    mask = torch.zeros(6, 2, 9, 2)
    mask[[0, 3], ..., 0] = 1.0
    mask[[1, 2, 5], ..., 1] = 1.0
    plan = plan_dispatch(mask.flatten(1, 2) > 0)
    assert plan.gaps[:4].tolist() == [0, 3, 0, 3]
    compare(mask)


def test_few_rows_and_none():
    """Expert 1 has fewer rows than statistics need, expert 2 none, expert 3 a single one."""
    mask = torch.zeros(4, 3, 10, 4)
    mask[..., 0] = (torch.rand(4, 3, 10, generator=torch.Generator().manual_seed(2)) < 0.5).float()
    mask[[0, 2], 0, :5, 1] = 1.0
    mask[3, 2, 9, 3] = 1.0
    assert mask.sum((0, 1, 2))[1:].tolist() == [10, 0, 1]
    assert mask[..., 0].sum() > MIN_ROWS > 10
    found = compare(mask)
    for name in ("weight1", "weight2", "norm1.weight", "norm2.bias"):
        assert not found[f"{name}.grad"][2].any()
        assert found[f"{name}.grad"][3].any()


def test_with_fewer_than_16_rows_statistics_stay():
    experts = make_experts(2, 0, "grouped").train()
    before = copy.deepcopy(experts.state_dict())
    mask = torch.zeros(3, 1, 5, 2)
    mask[..., 0] = 1.0
    experts(make_spikes(mask, 0), mask)
    assert all(torch.equal(v, before[k]) for k, v in experts.state_dict().items())
    mask = torch.ones(4, 1, 4, 2)  # exactly 16
    experts(make_spikes(mask, 0), mask)
    assert (experts.norm1.running_mean != before["norm1.running_mean"]).any(1).all()


# -- the kernel alone ------------------------------------------------------------------------------


def alone(current, chosen, neurons, gated=True):
    """fused_expert_lif of one expert whose norm does nothing, on (T, tokens, F) currents.

    Returns:
        spikes (T, tokens, F), and the leaves (current, gates) with gradients to come.
    """
    plan = plan_dispatch(chosen[..., None])
    leaf = current.clone().requires_grad_()
    gates = torch.ones(len(plan.rows), requires_grad=True) if gated else None
    features = current.shape[-1]
    still = torch.zeros(1, features), torch.ones(1, features)
    moments = Moments(mean=still[0], var=still[1], eps=0.0, own=False)
    rows = leaf.flatten(0, 1).index_select(0, plan.rows)
    spikes = fused_expert_lif(rows, still[1], still[0], gates, moments, plan, neurons)
    out = torch.zeros_like(current).flatten(0, 1).index_copy(0, plan.rows, spikes)
    return out.view_as(current), leaf, gates, plan


@pytest.mark.parametrize(
    ("detach", "expected"), [(False, [0.761166, 1.153602]), (True, [0.906887, 1.153602])]
)
def test_a_step_without_a_row_passes_gradient_through_the_reset(detach, expected):
    """One neuron, chosen at steps 0 and 2: currents 0.75 and 0.3125; loss s0 + 4 s2.

    u = 0.75, 0.375 (decayed, no row), 0.5;  h'(u0) = 0.618486, h'(u1) = 0.205956, h'(u2) = 0.288400

    dL/du2 = 4 h'2 = 1.153602
    dL/du1 = 0.5 dL/du2 (1 - 0.375 h'1) = 0.576801 * 0.922766 = 0.532253: no spike is read at step 1,
             yet the reset that did not happen has its surrogate derivative
    dL/du0 = h'0 + 0.5 dL/du1 (1 - 0.75 h'0) = 0.618486 + 0.266126 * 0.536136 = 0.761166

    and with a detached reset dL/du0 = h'0 + 0.5 * 0.576801 = 0.906887.
    """
    current = torch.tensor([0.75, 0.0, 0.3125]).view(3, 1, 1)
    chosen = torch.tensor([True, False, True]).view(3, 1)
    spikes, leaf, _, _ = alone(current, chosen, constants(detach_reset=detach))
    (spikes.flatten() * torch.tensor([1.0, 9.0, 4.0])).sum().backward()
    assert not spikes.any()
    found = leaf.grad.flatten().tolist()
    assert found[1] == 0.0
    assert [found[0], found[2]] == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize("surrogate", ["atan", "fast_sigmoid", "sigmoid"])
def test_rows_with_gaps_are_a_window_with_zero_currents(surrogate, detach):
    """What the masked form computes: a current of 0 where the gate is closed; random choices."""
    neurons = constants(surrogate=surrogate, detach_reset=detach, membrane_decay=0.9)
    generator = torch.Generator().manual_seed(3)
    current = torch.randn(9, 150, 6, generator=generator) * 0.6 + 0.2
    chosen = torch.rand(9, 150, generator=generator) < 0.35
    weights = torch.randn(current.shape, generator=generator)
    spikes, leaf, gates, plan = alone(current, chosen, neurons)
    wide = current.double().requires_grad_()
    gated = chosen.double()[..., None].requires_grad_()
    expected = plain_lif(wide * gated, neurons)
    assert torch.equal(spikes.double(), expected * chosen[..., None])
    assert 0.02 < spikes.mean() < 0.5
    (spikes * weights).sum().backward()
    (expected * chosen[..., None] * weights).sum().backward()
    assert_near(leaf.grad, wide.grad, FLOAT32, "current")
    # The gate stands before the weights and behind the norm, which are both 1 here: twice the term.
    both = 2 * gated.grad.flatten()[plan.rows]
    assert_near(gates.grad, both, FLOAT32, "gates")


def test_gates_that_need_no_gradient():
    current, chosen = torch.randn(3, 40, 6), torch.ones(3, 40, dtype=torch.bool)
    results = []
    for gated in (True, False):
        spikes, leaf, gates, _ = alone(current, chosen, constants(), gated)
        spikes.sum().backward()
        results.append((spikes, leaf.grad))
    assert gates is None
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
