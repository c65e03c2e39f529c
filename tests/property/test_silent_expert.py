"""An expert that is not chosen costs nothing and says nothing, whatever its weights are."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_models import settled_model, tiny_config, tiny_images

from hardware.energy import Operation, count_operations
from hardware.ir import run_reference
from hardware.lowering import lower, record_torch
from hardware.passes.quantise import quantise
from hardware.simulate import to_inputs
from hardware.verify import compare_traces

SHUT = 1  # the expert whose gates are forced shut
CONFIG = tiny_config(num_experts=4, top_k=2, depth=2, expert_width=5)


def build(*, hold="step"):
    """A model that never chooses expert SHUT in any block."""
    model = settled_model(replace(CONFIG, hold=hold))
    for block in model.blocks:
        block.moe.router.homeostatic_bias[SHUT] = -100.0
    return model


def shake(model, amount=50.0):
    """Replace everything that expert SHUT owns by something large and random."""
    torch.manual_seed(99)
    for block in model.blocks:
        experts = block.moe.experts
        for tensor in (
            experts.weight1,
            experts.weight2,
            *(
                t
                for n in (experts.norm1, experts.norm2)
                for t in (n.weight, n.bias, n.running_mean)
            ),
        ):
            tensor.data[SHUT] = amount * torch.randn_like(tensor.data[SHUT])
    return model


def own_names(graph, expert):
    return [n for n in graph.populations if f".experts.{expert}." in n]


@pytest.mark.parametrize("arithmetic", ["float", "fixed"])
@pytest.mark.parametrize("hold", ["step", "window"])
def test_no_spike_and_no_operation(arithmetic, hold):
    model = build(hold=hold)
    graph = lower(model)
    if arithmetic == "fixed":
        graph = quantise(graph)
    trace = run_reference(graph, to_inputs(graph, tiny_images(CONFIG, 20)))
    counts = count_operations(graph, trace)
    work = dict.fromkeys(range(4), 0)
    for synapse, tally in zip(graph.synapses, counts.synapses, strict=True):
        if synapse.expert is not None:
            work[synapse.expert[1]] += sum(tally.operations.values())
    assert work[SHUT] == 0
    assert all(work[e] > 0 for e in range(4) if e != SHUT), "the others must have worked"
    names = own_names(graph, SHUT)
    assert len(names) == 2 * CONFIG.depth
    for tally in counts.populations:
        if tally.where in names:
            assert not trace.spikes[tally.where].any()
            assert Operation.SPIKE not in tally.operations or tally.operations[Operation.SPIKE] == 0
            if tally.where.endswith("hidden"):
                assert tally.operations[Operation.NEURON_UPDATE_ACTIVE] == 0
    assert any(trace.spikes[n].any() for n in own_names(graph, 0))


def test_torch_records_the_same_silence():
    trace = record_torch(build(), tiny_images(CONFIG, 20))
    for name, spikes in trace.spikes.items():
        if f".experts.{SHUT}." in name:
            assert not spikes.any(), name
    assert any(trace.spikes[n].any() for n in trace.spikes if ".experts.0." in n)


@pytest.mark.parametrize("training", [False, True])
def test_its_weights_change_nothing_in_torch(training):
    images = tiny_images(CONFIG, 16)
    plain, shaken = build().train(training), shake(build()).train(training)
    assert not torch.equal(
        plain.blocks[0].moe.experts.weight1, shaken.blocks[0].moe.experts.weight1
    )
    assert torch.equal(plain(images).logits, shaken(images).logits)


def test_its_weights_get_no_gradient_in_torch():
    model = build().train()
    model(tiny_images(CONFIG, 16)).logits.square().sum().backward()
    experts = model.blocks[0].moe.experts
    for parameter in (experts.weight1, experts.weight2, experts.norm1.weight, experts.norm1.bias):
        assert not parameter.grad[SHUT].any()
        assert parameter.grad[0].any()


def test_its_weights_change_nothing_on_the_reference():
    images = tiny_images(CONFIG, 20)
    traces = []
    for model in (build(), shake(build())):
        graph = lower(model)
        traces.append(run_reference(graph, to_inputs(graph, images)))
    for name in traces[0].spikes:
        assert np.array_equal(traces[0].spikes[name], traces[1].spikes[name]), name
    assert np.array_equal(traces[0].logits, traces[1].logits)


def test_its_weights_change_nothing_in_fixed_point():
    """The integers of the silent expert are exchanged after quantising: its scale is shared."""
    images = tiny_images(CONFIG, 20)
    graph = quantise(lower(build()))
    rng = np.random.default_rng(0)
    shaken = graph.with_(
        synapses=[
            replace(
                s, weight=np.where(s.weight != 0, 2 * rng.integers(-127, 128, s.weight.shape), 0)
            )
            if s.expert is not None and s.expert[1] == SHUT
            else s
            for s in graph.synapses
        ]
    )
    before, after = (run_reference(g, to_inputs(g, images)) for g in (graph, shaken))
    assert graph.fingerprint != shaken.fingerprint
    for name in before.spikes:
        assert np.array_equal(before.spikes[name], after.spikes[name]), name
    assert np.array_equal(before.logits, after.logits)


def test_the_test_can_fail():
    """An expert that is chosen does change the output."""
    images = tiny_images(CONFIG, 16)
    model = build()
    before = model(images).logits
    model.blocks[0].moe.experts.weight1.data[0] *= -3.0
    assert not torch.equal(before, model(images).logits)


@pytest.mark.parametrize("order", [(3, 2, 1, 0), (1, 2, 3, 0)])
def test_permuting_experts_permutes_gates_and_leaves_logits(order):
    images = tiny_images(CONFIG, 12).double()
    model, permuted = settled_model(CONFIG).double(), settled_model(CONFIG).double()
    index = torch.tensor(order)
    for block in permuted.blocks:
        router, experts = block.moe.router, block.moe.experts
        rows = [router.from_prompt.weight, router.from_token.weight, router.homeostatic_bias]
        rows += [experts.weight1, experts.weight2]
        for norm in (experts.norm1, experts.norm2):
            rows += [norm.weight, norm.bias, norm.running_mean, norm.running_var]
        for tensor in rows:
            tensor.data.copy_(tensor.data[index].clone())
    first, second = model(images), permuted(images)
    for a, b in zip(first.routing, second.routing, strict=True):
        assert torch.equal(a.gates[..., index], b.gates)
        assert torch.allclose(a.load[index], b.load)
    # float64 sums over experts in another order
    assert torch.allclose(first.logits, second.logits, rtol=1e-10, atol=1e-12)
    graph = lower(permuted)
    reference = run_reference(graph, to_inputs(graph, images))
    assert compare_traces(graph, record_torch(permuted, images), reference).same
