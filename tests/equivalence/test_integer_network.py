"""The integer network in torch: the reference bit for bit, also while its weights are being trained."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from graphs import cases
from hypothesis import given, settings
from routing_family import each_of_the_family, of_family
from tiny_models import settled_model, tiny_config, tiny_images

from hardware.errors import BackendError, FileError
from hardware.ir import LIF, Conv2d, Dense, Input, Readout, SpikeGraph, one_to_one, run_reference
from hardware.ir.number_formats import number_formats
from hardware.lowering import lower
from hardware.lowering.integer import GridNetwork, IntegerNetwork, message_squares, run_torch
from hardware.lowering.integer.tuning import TuningSettings, tune
from hardware.passes.plan import apply_plan
from hardware.passes.quantise import choose_plan, quantise
from hardware.simulate import to_inputs
from hardware.verify import compare_traces
from spikingmoe.functional.surrogate import make_surrogate
from spikingmoe.train.quantised import network_inputs

SURROGATE = make_surrogate("atan")


def assert_same(graph, inputs):
    comparison = compare_traces(graph, run_reference(graph, inputs), run_torch(graph, inputs))
    assert comparison.same, comparison.first
    return comparison


@each_of_the_family
@pytest.mark.parametrize("residual", ["relay", "unrolled"])
def test_it_is_the_reference_for_every_routing(name, residual):
    config, model = of_family(name)
    graph = quantise(lower(model, residual=residual))
    comparison = assert_same(graph, to_inputs(graph, tiny_images(config, 6)))
    assert comparison.compared > 1000


@pytest.mark.parametrize("options", [
    {"attention": "sdsa"},
    {"attention": "dwconv", "local_mixing": "dwconv"},
    {"local_mixing": "conv", "early_depths": (1,), "image_size": 8},
    {"cortical_feedback": True, "depth": 2},
    {"hold": "window", "hold_step": 1},
], ids=str)  # fmt: skip
def test_it_is_the_reference_for_every_mechanism(options):
    config = tiny_config(**options)
    graph = quantise(lower(settled_model(config)))
    assert_same(graph, to_inputs(graph, tiny_images(config, 5)))


@settings(max_examples=60, deadline=None)
@given(cases(arithmetic="fixed"))
def test_it_is_the_reference_for_random_graphs(case):
    """Loops, clocks, constants, delays and convolutions of any kind; floored sums are refused by name."""
    if any((s.weight % 2.0 ** max(-s.exponent, 0)).any() for s in case.graph.synapses):
        with pytest.raises(BackendError, match="floors sums; run it on the reference"):
            run_torch(case.graph, case.inputs)
        return
    assert_same(case.graph, case.inputs)


def test_what_it_refuses():
    graph = lower(settled_model(tiny_config()))
    with pytest.raises(BackendError, match="needs a fixed-point graph; quantise it first"):
        IntegerNetwork(graph)
    fixed = quantise(graph)
    late = [replace(s, delay=s.delay + 1) if i == 5 else s for i, s in enumerate(fixed.synapses)]
    with pytest.raises(BackendError, match="needs balanced delays"):
        IntegerNetwork(fixed.with_(synapses=late))


def test_a_sum_beyond_the_range_is_named():
    graph = SpikeGraph(
        populations={
            "data": Input(name="data", shape=(600,), kind="binary"),
            "n": LIF(name="n", shape=(1,), threshold=np.array(5), bias=np.array(0)),
            "out": Readout(name="out", shape=(1,), bias=np.array(0)),
        },
        synapses=(
            Dense(source="data", target="n", weight=np.full((1, 600), 254)),
            replace(one_to_one("n", "out", 1), weight=np.array([2])),
        ),
        time_steps=1,
        arithmetic="fixed",
    )
    with pytest.raises(BackendError, match="'n' accumulated 152,400, beyond"):
        run_torch(graph, np.ones((2, 1, 600)))


def test_sums_that_float32_cannot_hold_are_made_in_float64():
    """2^24 + 2 - 1 of ones: the last one would be lost in float32."""

    def graph(inputs, weight):
        return SpikeGraph(
            populations={
                "data": Input(name="data", shape=(inputs,), bits=17, scale=1.0, limit=65535.0),
                "out": Readout(name="out", shape=(1,), bias=np.array(0)),
            },
            synapses=(Dense(source="data", target="out", weight=np.full((1, inputs), weight)),),
            time_steps=1,
            arithmetic="fixed",
        )  # fmt: skip

    small, large = graph(127, 2), graph(129, 2)  # 2 * 65535 * n: below and above 2^24
    assert number_formats(small)["out"] == np.float32
    assert number_formats(large)["out"] == np.float64
    with pytest.raises(BackendError, match="beyond"):
        run_torch(large, np.full((1, 1, 129), 65535.0))
    inputs = np.full((1, 1, 127), 65535.0)
    inputs[0, 0, 64:] = -65533.0
    expected = 2 * (64 * 65535 - 63 * 65533)
    for run in (run_reference, run_torch):
        assert run(small, inputs).logits.tolist() == [[expected]]


# ---- training on the grid


def prepared(bits=4, seed=0, **options):
    config = tiny_config(**options)
    model = settled_model(config, seed)
    graph = lower(model)
    return model, graph, choose_plan(graph, weight_bits=bits, headroom=2.0), config


def stirred(network, seed=0):
    """Weights somewhere else, so that nothing holds because it held at the beginning."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            spread = parameter.abs().mean()
            parameter += 0.2 * spread * torch.randn(parameter.shape, generator=generator)
    return network


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("options", [{}, {"attention": "sdsa", "shared_experts": 1}], ids=str)
def test_what_is_trained_is_the_program_that_runs(bits, options):
    """The forward pass of the trainable network, and the reference on its weights put on the grid."""
    _, graph, plan, config = prepared(bits, **options)
    network = stirred(GridNetwork(graph, plan, SURROGATE))
    images = tiny_images(config, 7)
    with torch.no_grad():
        logits, values = network(network_inputs(images), ["head.x"])
    program = apply_plan(network.trained_graph(), plan)
    assert program.fingerprint != apply_plan(graph, plan).fingerprint
    trace = run_reference(program, to_inputs(program, images))
    assert np.array_equal(logits.numpy(), trace.logits)
    sent = values["head.x"].transpose(0, 1).numpy()
    assert 0.02 < sent.mean() < 0.98
    assert np.array_equal(sent.astype(bool), trace.spikes["head.x"])


def test_copies_of_a_synapse_and_the_positions_of_the_head_stay_the_same():
    config = tiny_config(depth=2)
    graph = lower(settled_model(config), residual="unrolled")
    plan = choose_plan(graph, headroom=2.0)
    trained = stirred(GridNetwork(graph, plan, SURROGATE)).trained_graph()
    head = next(s for s in trained.synapses if s.target == "head.readout")
    blocks = head.weight.reshape(len(head.weight), -1, config.embed_dim)
    assert np.array_equal(blocks, np.broadcast_to(blocks[:, :1], blocks.shape))
    moved, copies = 0, {}
    for old, new in zip(graph.synapses, trained.synapses, strict=True):
        copies.setdefault((old.source, old.weight.tobytes()), []).append(new.weight)
        moved += not np.array_equal(old.weight, new.weight)
    assert moved > 10
    assert max(len(c) for c in copies.values()) > 1
    assert all(np.array_equal(c[0], w) for c in copies.values() for w in c)


def test_a_closed_expert_stays_silent_whatever_is_trained():
    _, graph, plan, config = prepared()
    program = apply_plan(stirred(GridNetwork(graph, plan, SURROGATE)).trained_graph(), plan)
    trace = run_reference(program, to_inputs(program, tiny_images(config, 20)))
    gates = trace.spikes["blocks.0.moe.gate"]
    assert 0 < gates.mean() < 1
    for expert in range(config.num_experts):
        closed = ~gates[..., expert]
        hidden = trace.spikes[f"blocks.0.moe.experts.{expert}.hidden"]
        assert closed.any()
        assert not hidden[closed].any()


def test_the_gradient_of_an_and_is_the_other_spike():
    data = Input(name="data", shape=(1, 1, 2), kind="binary")
    populations = [
        data,
        *(LIF(name=n, shape=(1, 1, 1), threshold=np.asarray(0.5)) for n in "ab"),
        LIF(
            name="both", shape=(1, 1, 1), membrane_decay=0.0, threshold=np.asarray(1.5), role="and"
        ),
        Readout(name="out", shape=(1,)),
    ]
    kernels = {"a": [[1.0, 0.0]], "b": [[0.0, 1.0]]}
    graph = SpikeGraph(
        populations={p.name: p for p in populations},
        synapses=(
            *(Conv2d(source="data", target=n, weight=np.array(k)[:, :, None, None]) for n, k in kernels.items()),
            *(one_to_one(n, "both", 1) for n in "ab"),
            one_to_one("both", "out", 1),
        ),
        time_steps=1,
    )  # fmt: skip
    network = GridNetwork(graph, choose_plan(graph), SURROGATE)
    weights = {
        s.target: network.weights[network.parameter_of[id(s)]] for s in network.graph.synapses[:2]
    }
    network(torch.tensor([[[[[1.0, 0.0]]]]]))[0].sum().backward()  # a spikes, b does not
    slope_b = 1 / (1 + (np.pi * -0.5) ** 2)  # of atan, half a unit below the threshold
    assert weights["a"].grad.flatten().tolist() == [0.0, 0.0]
    assert weights["b"].grad.flatten().tolist() == pytest.approx([slope_b, 0.0], rel=1e-2)
    network.zero_grad()
    network(torch.tensor([[[[[1.0, 1.0]]]]]))[0].sum().backward()
    slope = 1 / (1 + (np.pi * 0.5) ** 2)
    assert weights["a"].grad.flatten()[0].item() == pytest.approx(slope, rel=1e-2)
    assert weights["b"].grad.flatten()[1].item() == pytest.approx(slope_b, rel=1e-2)


def tune_small(folder, name, epochs, stop_after=None, **changes):
    model, graph, plan, config = prepared()
    network = GridNetwork(graph, plan, SURROGATE)
    images = tiny_images(config, 32)
    labels = torch.arange(32) % config.num_classes
    stop = epochs if stop_after is None else stop_after

    class StoppedError(Exception):
        pass

    def batches(epoch):
        if epoch >= stop:
            raise StoppedError
        order = torch.randperm(32, generator=torch.Generator().manual_seed(epoch))
        for index in order.split(8):
            yield network_inputs(images[index]), images[index], labels[index]

    options = {"learning_rate": 3e-3, "epochs": epochs, "steps_per_epoch": 4, **changes}
    try:
        losses = tune(
            network,
            model,
            batches,
            TuningSettings(**options),
            state=folder / name,
            origin="test",
        )
    except StoppedError:
        losses = []
    return network, losses


def test_tuning_lowers_the_loss_and_resumes_exactly(tmp_path):
    whole, losses = tune_small(tmp_path, "whole", 4)
    assert losses[-1] < losses[0]
    tune_small(tmp_path, "parts", 4, stop_after=2)
    parts, again = tune_small(tmp_path, "parts", 4)
    assert again == losses
    for (name, a), (_, b) in zip(whole.named_parameters(), parts.named_parameters(), strict=True):
        assert torch.equal(a, b), name


def test_tuning_refuses_what_it_cannot_go_on_from(tmp_path):
    tune_small(tmp_path, "state", 2)
    with pytest.raises(FileError, match="belongs to another tuning"):
        tune_small(tmp_path, "state", 3)
    (tmp_path / "state").write_bytes((tmp_path / "state").read_bytes()[:-3])
    with pytest.raises(FileError, match="state"):
        tune_small(tmp_path, "state", 2)
    with pytest.raises(ValueError, match="smaller learning rate"):
        tune_small(tmp_path, "wild", 3, learning_rate=1e34)


@pytest.mark.parametrize(("field", "value"), [("epochs", 0), ("learning_rate", 0.0), ("distillation", 2.0)])  # fmt: skip
def test_tuning_settings(field, value):
    fields = {"epochs": 1, "steps_per_epoch": 1, field: value}
    with pytest.raises(ValueError, match=f"{field}={value}"):
        TuningSettings(**fields)


def test_message_squares_are_the_mean_squares_of_what_is_sent():
    config = tiny_config()
    graph = lower(settled_model(config))
    inputs = to_inputs(graph, tiny_images(config, 70))  # more than one batch of the reference
    found = message_squares(graph, inputs)
    for name, sent in run_reference(graph, inputs).spikes.items():
        expected = np.square(sent.astype(float)).reshape(70 * config.time_steps, -1).mean(0)
        assert np.allclose(found[name], expected, rtol=1e-9), name
