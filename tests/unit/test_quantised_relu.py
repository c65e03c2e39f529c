"""The quantised twin's activation and weights: levels, gradients by hand, a checkpoint's round trip."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from small_runs import MODEL, SETTINGS, small_data
from tiny_models import settled_model, tiny_config

from spikingmoe.config import quantised_bits, quantised_relu_twin
from spikingmoe.layers.attention import make_attention
from spikingmoe.layers.neuron import And, QuantisedAnd
from spikingmoe.layers.quantised_relu import QuantisedReLU
from spikingmoe.rounding import with_rounded_weights
from spikingmoe.train.checkpoint import load_run
from spikingmoe.train.fit import train


def layer(bits, step):
    found = QuantisedReLU(bits)
    found.step.data.fill_(step)
    return found


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_there_are_exactly_as_many_levels_as_the_bits_tell_apart(bits):
    x = torch.linspace(-3, 3 * 2**bits, 4001)[None, :, None]
    levels = layer(bits, 0.25)(x).unique()
    assert levels.tolist() == [0.25 * k for k in range(2**bits)]


def test_worked_values_and_the_gradients_of_lsq():
    """s = 0.5, Q = 3; n = 4 values per sample and share 1 / sqrt(4 * 3): Esser 2020, equation 3."""
    x = torch.tensor([-1.0, 0.3, 0.9, 4.0]).view(1, 1, 4).requires_grad_()
    neuron = layer(2, 0.5)
    y = neuron(x)
    assert y.flatten().tolist() == [0.0, 0.5, 1.0, 1.5]  # x / s = -2, 0.6, 1.8, 8
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [0.0, 1.0, 1.0, 0.0]
    assert neuron.step.grad is not None
    by_hand = (0 + (1 - 0.6) + (2 - 1.8) + 3) / math.sqrt(12)
    assert float(neuron.step.grad) == pytest.approx(by_hand, rel=1e-5)


def test_bits_are_those_that_spikes_in_t_steps_tell_apart():
    assert [quantised_bits(t) for t in (1, 2, 3, 4, 7, 8, 16)] == [1, 2, 2, 3, 3, 4, 5]
    twin = quantised_relu_twin(tiny_config(time_steps=4))
    assert (twin.neuron, twin.activation_bits, twin.time_steps) == ("quantised_relu", 3, 1)
    assert not twin.is_spiking


def test_products_of_activations_have_no_more_bits_than_these():
    module = make_attention(quantised_relu_twin(tiny_config(time_steps=3)))
    gates = [m for m in module.modules() if isinstance(m, And)]  # type: ignore[union-attr]
    assert [type(gate) for gate in gates] == [QuantisedAnd]
    product = gates[0](torch.tensor([[3.0]]), torch.tensor([[3.0]]))
    assert (product / gates[0].quantise.step).item() == pytest.approx(3)  # type: ignore[union-attr,operator]


def test_rounded_weights_lie_on_one_grid_per_output_channel():
    model = settled_model(quantised_relu_twin(tiny_config()))
    rounded = with_rounded_weights(model, 4)
    weight, before = rounded.head.weight, model.head.weight
    assert not torch.equal(weight, before)
    scale = before.abs().amax(dim=1, keepdim=True) / 7
    steps = weight / scale
    assert torch.allclose(steps, steps.round(), atol=1e-5)
    assert float(steps.detach().abs().max()) == pytest.approx(7)
    assert ((weight - before).abs() <= scale / 2 + 1e-6).all()
    assert torch.equal(rounded.head.bias, model.head.bias)
    with pytest.raises(ValueError, match="weight bits=1; use at least 2"):
        with_rounded_weights(model, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"neuron": "quantised_relu"},
            "activation_bits=0 with neuron='quantised_relu'; use 1 to 8",
        ),
        ({"neuron": "quantised_relu", "activation_bits": 9}, "activation_bits=9"),
        ({"neuron": "relu", "activation_bits": 2}, "only 'quantised_relu' has them; use 0"),
    ],
)
def test_bits_that_mean_nothing_are_refused(options, message):
    dense = {"routing": "dense", "num_experts": 1, "time_steps": 1}
    with pytest.raises(ValueError, match=message):
        tiny_config(**dense, **options)


def test_a_trained_twin_comes_back_from_its_checkpoint_bit_for_bit(tmp_path):
    twin = quantised_relu_twin(MODEL)
    run = train(twin, replace(SETTINGS, epochs=1, warmup_epochs=0), small_data(), tmp_path)
    again = load_run(tmp_path)
    assert again.model_config == twin
    states = run.model.state_dict(), again.model.state_dict()
    steps = [name for name in states[0] if name.endswith("step")]
    fresh = float(QuantisedReLU(twin.activation_bits).step)
    assert len(steps) > 5
    assert any(float(states[0][name]) != fresh for name in steps), "steps are trained"
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
    images = small_data().test.images[:4]
    assert torch.equal(run.model(images).logits, again.model(images).logits)
