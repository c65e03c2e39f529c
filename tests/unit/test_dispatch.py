"""Grouped dispatch is the masked form with less work: values, gradients, statistics, operations."""

import copy
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from spikingmoe.config import ModelConfig
from spikingmoe.functional.dispatch import plan_dispatch
from spikingmoe.functional.dispatch_cost import masked_is_faster
from spikingmoe.functional.gate_rows import gate_rows
from spikingmoe.functional.lif import lif
from spikingmoe.functional.surrogate import make_surrogate
from spikingmoe.layers.expert import Experts
from spikingmoe.layers.gated_norm import MIN_ROWS

# float64; the two forms sum the same products in another order
CLOSE = {"rtol": 1e-12, "atol": 1e-12}


def make_experts(experts=4, *, dim=5, width=6, seed=0, **options):
    config = ModelConfig(
        num_experts=experts,
        embed_dim=dim,
        num_heads=1,
        expert_width=width,
        routing="threshold",
        gate_gradient="chosen",
        **options,
    )
    torch.manual_seed(seed)
    module = Experts(config).double()
    for norm in (module.norm1, module.norm2):
        norm.weight.data.uniform_(0.8, 1.6)
        norm.bias.data.uniform_(-0.2, 0.8)
        norm.running_mean.uniform_(-0.3, 0.3)
        norm.running_var.uniform_(0.2, 0.6)
    return module


def make_spikes(mask, dim=5, seed=1):
    generator = torch.Generator().manual_seed(seed)
    spikes = torch.rand(*mask.shape[:3], dim, generator=generator, dtype=torch.float64) < 0.4
    return spikes.double()


def run(experts, x, mask, forward=None):
    """Everything that can be compared, of one training (or evaluation) step."""
    experts = copy.deepcopy(experts)
    x = x.clone().requires_grad_()
    soft = torch.rand(mask.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    soft.requires_grad_()
    gates = mask * (1 + (soft - soft.detach()))
    out, mean = (forward or type(experts).__call__)(experts, x, gates)
    generator = torch.Generator().manual_seed(6)
    loss = sum(
        (t * torch.randn(t.shape, generator=generator, dtype=torch.float64)).sum()
        for t in (out, mean)
    )
    loss.backward()
    found = {"out": out, "mean outputs": mean, "x.grad": x.grad, "gates.grad": soft.grad}
    found |= {f"{name}.grad": p.grad for name, p in experts.named_parameters()}
    found |= {name: b.clone() for name, b in experts.named_buffers()}
    return {k: torch.zeros(()) if v is None else v.detach() for k, v in found.items()}


FORMS = ("masked", "grouped")
RECORDED = Path(__file__).parents[2] / "benchmarks" / "results" / "expert_speed_1thread.json"


def all_forms(experts, x, mask):
    results = []
    for form in FORMS:
        experts.dispatch = form
        results.append(run(experts, x, mask))
    return results


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(
            second[name], value, **CLOSE, msg=lambda m, name=name: f"{name}: {m}"
        )


@st.composite
def gate_patterns(draw):
    """(T, B, N, E) of 0 and 1, of every kind that a router can produce."""
    steps, batch, tokens = draw(
        st.sampled_from([(1, 1, 1), (1, 6, 5), (2, 3, 4), (3, 2, 9), (4, 5, 6), (7, 2, 4)])
    )
    experts = draw(st.integers(2, 5))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10**6)))
    kind = draw(st.sampled_from(["top_k", "threshold", "one", "none"]))
    hold = draw(st.sampled_from(["step", "window", "late"]))
    by_image = draw(st.booleans())
    shape = (1 if hold != "step" else steps, batch, 1 if by_image else tokens, experts)
    scores = torch.rand(shape, generator=generator)
    if kind == "top_k":
        k = draw(st.integers(1, experts))
        mask = torch.zeros(shape).scatter_(-1, scores.topk(k).indices, 1.0)
    elif kind == "threshold":
        mask = (scores < draw(st.sampled_from([0.05, 0.3, 0.9]))).float()
    else:
        mask = torch.zeros(shape)
        mask[..., 1] = float(kind == "one")
    mask = mask.expand(steps, batch, tokens, experts).clone()
    if hold == "late":
        mask[: steps // 2] = 0.0
    return mask.double()


@settings(max_examples=60, deadline=None)
@given(mask=gate_patterns(), training=st.booleans(), detach_reset=st.booleans())
def test_grouped_equals_masked(mask, training, detach_reset):
    experts = make_experts(mask.shape[-1], detach_reset=detach_reset).train(training)
    masked, grouped = all_forms(experts, make_spikes(mask), mask)
    assert_same(masked, grouped)
    shut = (mask == 0).expand_as(mask)
    assert not masked["gates.grad"][shut].any()


def naive(experts, x, gates):
    """A loop over experts, tokens and steps, from the equations of the design."""
    out, means = torch.zeros_like(x), []
    steps, batch, tokens, _ = x.shape
    places = [(b, n) for b in range(batch) for n in range(tokens)]
    for e in range(gates.shape[-1]):
        rows = [(t, b, n) for t in range(steps) for b, n in places if gates[t, b, n, e] > 0]
        if not rows:
            means.append(x.new_zeros(x.shape[-1]))
            continue
        g = torch.stack([gates[*row, e] for row in rows])[:, None]
        y = torch.stack([experts.weight1[e] @ (gates[*row, e] * x[row]) for row in rows])
        current = dict(zip(rows, g * naive_norm(experts.norm1, e, y), strict=True))
        hidden = {}
        for b, n in places:
            silent = x.new_zeros(experts.weight1.shape[1])
            sequence = torch.stack([current.get((t, b, n), silent) for t in range(steps)])
            spikes = lif(
                sequence,
                membrane_decay=0.5,
                threshold=1.0,
                spike_function=make_surrogate("atan"),
                detach_reset=experts.neuron.detach_reset,
            )
            hidden |= {(t, b, n): spikes[t] for t in range(steps)}
        y = torch.stack([experts.weight2[e] @ hidden[row] for row in rows])
        result = g * naive_norm(experts.norm2, e, y)
        for row, value in zip(rows, result, strict=True):
            part = torch.zeros_like(x)
            part[row] = 1.0
            out = out + part * value
        means.append(y.sum(0) / len(rows))
    return out, torch.stack(means)


def naive_norm(norm, e, y):
    mean, var = norm.running_mean[e].clone(), norm.running_var[e].clone()
    if norm.training and len(y) >= 16:
        mean, var = y.mean(0), y.var(0, unbiased=False)
        for running, new in ((norm.running_mean, mean), (norm.running_var, y.var(0))):
            running[e] = 0.9 * running[e] + 0.1 * new.detach()
    return norm.weight[e] * (y - mean) / (var + 1e-5).sqrt() + norm.bias[e]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("detach_reset", [False, True])
def test_all_forms_equal_a_naive_loop(training, detach_reset):
    generator = torch.Generator().manual_seed(3)
    mask = (torch.rand(3, 2, 8, 4, generator=generator) < 0.6).double()
    mask[..., 2] = 0.0
    mask[1:, :, :, 3] = 0.0
    mask[0, 0, 3:, 3] = 0.0  # too few rows for statistics
    assert mask[..., 3].sum() < MIN_ROWS < mask[..., 0].sum()
    experts = make_experts(detach_reset=detach_reset).train(training)
    x = make_spikes(mask)
    expected = run(experts, x, mask, naive)
    for found in all_forms(experts, x, mask):
        assert_same(expected, found)
    assert expected["out"].abs().max() > 0.1
    assert expected["gates.grad"].abs().max() > 0.1


def test_dyadic_numbers_give_the_same_bits():
    """Sums of multiples of 1/8 are exact in any order, so spikes and outputs are the same bits."""
    experts = make_experts(8, dim=16, width=12).float().eval()
    for weight in (experts.weight1, experts.weight2):
        weight.data = (weight.data * 32).round() / 8
    for norm in (experts.norm1, experts.norm2):
        norm.eps = 0.0
        norm.weight.data.fill_(1.0)
        norm.running_var.fill_(4.0)
        for tensor in (norm.bias.data, norm.running_mean):
            tensor.copy_((tensor * 8).round() / 8)
    mask = (torch.rand(4, 3, 10, 8, generator=torch.Generator().manual_seed(1)) < 0.3).float()
    x = make_spikes(mask, 16).float()
    experts.dispatch = "masked"
    expected = experts(x, mask)[0]
    experts.dispatch = "grouped"
    assert torch.equal(experts(x, mask)[0], expected)
    assert expected.abs().sum() > 0


@pytest.mark.parametrize("dispatch", FORMS)
def test_permuting_experts_permutes(dispatch):
    experts = make_experts().train()
    experts.dispatch = dispatch
    mask = (torch.rand(3, 4, 9, 4, generator=torch.Generator().manual_seed(2)) < 0.4).double()
    x, order = make_spikes(mask), torch.tensor([2, 0, 3, 1])
    permuted = copy.deepcopy(experts)
    tensors = (*permuted.parameters(), *permuted.norm1.buffers(), *permuted.norm2.buffers())
    for tensor in tensors:
        tensor.data.copy_(tensor.data[order].clone())
    first, second = run(experts, x, mask), run(permuted, x, mask[..., order])
    torch.testing.assert_close(second["out"], first["out"], **CLOSE)
    for name in ("norm1.running_mean", "norm2.running_var"):
        torch.testing.assert_close(second[name], first[name][order], **CLOSE)


# -- what is computed ------------------------------------------------------------------------------


def one_hot(choice, experts):
    return torch.nn.functional.one_hot(choice, experts).double()


def matrix_flops(experts, x, gates):
    x = x.clone().requires_grad_()
    with FlopCounterMode(display=False) as counter:
        experts(x, gates)[0].sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("k", [1, 2, 8])
@pytest.mark.parametrize("per_step", [False, True])
def test_only_chosen_rows_are_multiplied(k, per_step):
    """Two products forward, four backward, 2 D F operations per row each, and the mean outputs."""
    experts = make_experts(8, dim=6, width=10)
    scores = torch.rand(3 if per_step else 1, 4, 5, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros_like(scores).scatter_(-1, scores.topk(k).indices, 1.0).double()
    mask = mask.expand(3, 4, 5, 8)
    x = make_spikes(mask, 6)
    rows = {"grouped": k * 60, "masked": 8 * 60}
    for experts.dispatch, multiplied in rows.items():
        mean_outputs = 2 * 6 * 10 * 8
        assert matrix_flops(experts, x, mask) == 12 * 6 * 10 * multiplied + mean_outputs


class LargestTensor(TorchDispatchMode):
    """The number of elements of the largest tensor that anything returns, backward included."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.numel())
        return out


def test_no_tensor_of_all_experts_and_rows():
    experts = make_experts(8, dim=6, width=40)
    mask = one_hot(torch.arange(80).remainder(8).view(4, 20), 8).expand(3, 4, 20, 8)
    x = make_spikes(mask, 6).requires_grad_()
    sizes = {}
    for form in FORMS:
        experts.dispatch = form
        with LargestTensor() as seen:
            experts(x, mask)[0].sum().backward()
        sizes[form] = seen.largest
    rows = 3 * 80
    assert sizes["masked"] == 8 * rows * 40
    assert sizes["grouped"] == rows * 40


def saved_bytes(experts, x, gates):
    """Memory that the backward pass holds on to, shared storages once."""
    storages = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = experts(x, gates)[0].sum()
    del out
    return sum(storages.values())


def test_memory_for_the_backward_pass_grows_with_the_chosen_rows():
    experts = make_experts(8, dim=6, width=40)
    choice = torch.arange(800).remainder(8).view(20, 40)
    x, found = make_spikes(choice[None].expand(3, -1, -1), 6), {}
    for k in (1, 2, 8):
        mask = sum(one_hot((choice + i) % 8, 8) for i in range(k)).expand(3, 20, 40, 8)
        experts.dispatch = "grouped"
        found[k] = saved_bytes(experts, x, mask)
    experts.dispatch = "masked"
    masked = saved_bytes(experts, x, mask)
    assert 1.8 < found[2] / found[1] < 2.1
    assert found[1] < masked / 6
    assert found[8] < 1.1 * masked


def test_an_expert_without_rows_is_not_touched():
    experts = make_experts().train()
    experts.dispatch = "grouped"
    mask = one_hot(torch.zeros(2, 3, 9, dtype=torch.long), 4)
    experts.weight1.data[1:] = float("nan")
    found = run(experts, make_spikes(mask), mask)
    assert found["out"].isfinite().all()
    assert not found["weight1.grad"][1:].any()
    assert found["weight1.grad"][0].any()


@pytest.mark.parametrize("dispatch", FORMS)
def test_without_any_choice_gradients_are_zero_not_missing(dispatch):
    """An optimiser treats the two differently, as do several processes that share gradients."""
    experts = make_experts().train()
    experts.dispatch = dispatch
    mask = torch.zeros(2, 3, 4, 4, dtype=torch.float64)
    x = make_spikes(mask).requires_grad_()
    current, _ = experts(x, mask)
    current.sum().backward()
    assert not current.any()
    for tensor in (x, *experts.parameters()):
        assert tensor.grad is not None
        assert not tensor.grad.any()


# -- the plan --------------------------------------------------------------------------------------


def test_plan_by_hand():
    """Token 0 chooses expert 0 at steps 1 and 3, token 1 at step 2, token 2 expert 1 at 0 and 1."""
    chosen = torch.zeros(4, 3, 3, dtype=torch.bool)
    for t, p, e in [(1, 0, 0), (3, 0, 0), (2, 1, 0), (0, 2, 1), (1, 2, 1)]:
        chosen[t, p, e] = True
    plan = plan_dispatch(chosen)
    assert plan.rows_per_expert == [3, 2, 0]
    assert plan.rows.tolist() == [1 * 3, 3 * 3, 2 * 3 + 1, 0 * 3 + 2, 1 * 3 + 2]
    assert plan.gates.tolist() == [3 * 3, 9 * 3, 7 * 3, 2 * 3 + 1, 5 * 3 + 1]
    # Token 1 lasts one step, token 2 two, token 0 three, of which the second has no choice.
    assert plan.slots.groups == [(1, 1), (1, 2), (1, 3)]
    assert plan.slots.of_rows.tolist() == [3, 5, 0, 1, 2]
    assert plan.slots.total == 6


@pytest.mark.parametrize("first", [0, 1, 3])
def test_held_gates_need_one_group_without_gaps(first):
    chosen = torch.zeros(4, 30, 5, dtype=torch.bool)
    chosen[first:, torch.arange(30), torch.arange(30) % 5] = True
    plan = plan_dispatch(chosen)
    assert plan.slots.groups == [(30, 4 - first)]
    assert plan.slots.of_rows is None


def test_one_group_with_gaps_has_slots():
    """Every token chooses at steps 0 and 2 and has a silent step between."""
    chosen = torch.zeros(3, 5, 2, dtype=torch.bool)
    chosen[::2, :, 1] = True
    plan = plan_dispatch(chosen)
    assert plan.slots.groups == [(5, 3)]
    assert plan.slots.of_rows.tolist() == [0, 2, 3, 5, 6, 8, 9, 11, 12, 14]


@settings(max_examples=60, deadline=None)
@given(mask=gate_patterns())
def test_plan_holds_every_chosen_row_once(mask):
    chosen = mask.flatten(1, 2) > 0
    experts = chosen.shape[-1]
    plan = plan_dispatch(chosen)
    assert sorted(plan.gates.tolist()) == chosen.flatten().nonzero()[:, 0].tolist()
    assert torch.equal(plan.rows, plan.gates // experts)
    assert plan.rows_per_expert == chosen.sum((0, 1)).tolist()
    owner = (plan.gates % experts).tolist()
    assert owner == sorted(owner)
    slots = torch.arange(len(plan.rows)) if plan.slots.of_rows is None else plan.slots.of_rows
    assert len(set(slots.tolist())) == len(plan.rows)
    assert all(0 <= slot < plan.slots.total for slot in slots.tolist())


# -- which form ------------------------------------------------------------------------------------


def form_taken(experts, x, gates, monkeypatch):
    taken = []
    for form in FORMS:
        method = getattr(experts, f"_{form}")

        def keep(*args, form=form, method=method):
            taken.append(form)
            return method(*args)

        monkeypatch.setattr(experts, f"_{form}", keep)
    experts(x, gates)
    return taken


@pytest.mark.parametrize(("batch", "form"), [(1, "masked"), (100, "grouped")])
def test_auto_takes_the_cheaper_form(batch, form, monkeypatch):
    experts = make_experts(4, dim=6, width=64, dispatch="auto")
    mask = one_hot(torch.arange(batch * 10).remainder(4).view(batch, 10), 4)
    mask = mask.expand(3, batch, 10, 4)
    assert form_taken(experts, make_spikes(mask, 6), mask, monkeypatch) == [form]


def recorded_crossover():
    rows = json.loads(RECORDED.read_text(encoding="utf-8"))["rows"]
    return [row for row in rows if row["task"] == "crossover"]


def time_lost(chooses_masked):
    """By how much the choice is slower than the better form, over all recorded sizes, sorted."""
    lost = []
    for row in recorded_crossover():
        masked, grouped = row["masked_cpu_ms"], row["grouped_cpu_ms"]
        lost.append((masked if chooses_masked(row) else grouped) / min(masked, grouped))
    return sorted(lost)


def by_rule(row):
    return masked_is_faster(
        rows=row["rows"], experts=row["experts"], elements=row["dim"] + row["width"]
    )


def test_the_rule_takes_the_faster_form_of_the_measured_table():
    """Near the crossover the two are about as fast, so a wrong choice there loses little."""
    lost = time_lost(by_rule)
    assert len(lost) > 100
    assert sum(x > 1 for x in lost) < 0.15 * len(lost)
    assert lost[int(0.95 * len(lost))] < 1.25
    assert lost[-1] < 1.7
    choices = [by_rule(row) for row in recorded_crossover()]
    assert 10 < sum(choices) < len(choices) - 10
    for always in (True, False):  # no form is good enough alone
        assert time_lost(lambda _, always=always: always)[-1] > lost[-1]


def test_the_full_gate_gradient_needs_all_experts(monkeypatch):
    experts = Experts(
        ModelConfig(num_experts=4, embed_dim=6, num_heads=1, expert_width=256, gate_gradient="full")
    ).double()
    mask = one_hot(torch.arange(4000).remainder(4).view(400, 10), 4).expand(2, 400, 10, 4)
    x = make_spikes(mask, 6)
    assert form_taken(experts, x, mask.clone().requires_grad_(), monkeypatch) == ["masked"]
    assert form_taken(experts, x, mask, monkeypatch)[-1] == "grouped"
    experts.dispatch = "grouped"
    with pytest.raises(ValueError, match="gate_gradient='full' needs; use dispatch 'masked'"):
        experts(x, mask.clone().requires_grad_())


def test_gate_rows_is_a_product_with_its_gradient():
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    gate = torch.ones(5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, 3, dtype=torch.float64)
    expected = torch.autograd.grad((x * gate[:, None] * weight).sum(), (x, gate))
    found = torch.autograd.grad((gate_rows(x, gate) * weight).sum(), (x, gate))
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(b, a, **CLOSE)
