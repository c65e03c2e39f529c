"""The LIF equation: membranes, spikes and gradients worked out by hand."""

import copy
import gc
import weakref

import pytest
import snntorch
import torch
from tiny_models import tiny_config

from spikingmoe.functional.lif import lif
from spikingmoe.layers.neuron import LIF, And, make_neuron

SURROGATES = ("atan", "fast_sigmoid", "sigmoid")


def spikes_of(currents, **parameters):
    neuron = LIF(**parameters)
    return neuron(torch.tensor(currents).reshape(-1, 1)).flatten().tolist()


def step(x):
    """A spike function without a surrogate: its derivative is zero."""
    return (x > 0).to(x.dtype)


@pytest.mark.parametrize(
    ("currents", "expected"),
    [
        # u: 0.6, 0.9, 1.05 -> spike, reset; then 0.6 again
        ([0.6, 0.6, 0.6, 0.6], [0, 0, 1, 0]),
        # u: 2 -> spike, 0, 0.75, 0.375 + 0.75 = 1.125 -> spike
        ([2.0, 0.0, 0.75, 0.75], [1, 0, 0, 1]),
        # u = 1 exactly: no spike, and 1 is kept: then u = 0.5 + 0.5 = 1, no spike either
        ([1.0, 0.5, 0.5, 0.5], [0, 0, 0, 0]),
        # a hard reset forgets how far the membrane went: 100 -> 0, not 99
        ([100.0, 0.0, 0.0, 0.9], [1, 0, 0, 0]),
        # inhibition is remembered: -2, -1 + 1.75 = 0.75, 0.375 + 0.625 = 1: equality
        ([-2.0, 1.75, 0.625, 0.75], [0, 0, 0, 1]),
        ([0.0, 0.0, 0.0, 0.0], [0, 0, 0, 0]),
    ],
)
def test_hand_computed_spikes(currents, expected):
    assert spikes_of(currents) == expected


@pytest.mark.parametrize(
    ("decay", "expected"),
    [
        (0.0, [0, 0, 0, 0]),  # u = 0.75 always
        (0.25, [0, 0, 0, 0]),  # u -> 0.9375, 0.984375, 0.99609375 below 1
        (0.5, [0, 1, 0, 1]),  # u = 0.75, 1.125
        (0.875, [0, 1, 0, 1]),
    ],
)
def test_membrane_decay(decay, expected):
    assert spikes_of([0.75] * 4, membrane_decay=decay) == expected


def test_threshold_is_strict_and_moves():
    assert spikes_of([0.25, 0.25], threshold=0.25, membrane_decay=0.0) == [0, 0]
    assert spikes_of([0.25, 0.2500001], threshold=0.25, membrane_decay=0.0) == [0, 1]
    assert spikes_of([2.0, 2.5], threshold=2.25, membrane_decay=0.0) == [0, 1]


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_without_input_nothing_fires(decay):
    """After any step v <= threshold, so a neuron that hears nothing more stays silent."""
    currents = torch.randn(4, 100, generator=torch.Generator().manual_seed(0)) * 3
    silence = torch.zeros(20, 100)
    spikes = LIF(membrane_decay=decay)(torch.cat([currents, silence]))
    assert spikes[:4].any()
    assert not spikes[4:].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_dtype_and_binary_values(dtype, surrogate):
    currents = torch.randn(5, 3, 7, dtype=dtype)
    spikes = LIF(surrogate=surrogate)(currents)
    assert spikes.dtype == dtype
    assert spikes.shape == currents.shape
    assert torch.equal(spikes, spikes.bool().to(dtype))
    assert spikes.any()
    assert not spikes.all()


def test_float64_is_computed_in_float64():
    """1 + 2^-40 is above the threshold in float64 only."""
    assert LIF()(torch.tensor([[1.0 + 2.0**-40]], dtype=torch.float64)).item() == 1


def atan_derivative(x):
    """snnTorch's atan with alpha = 2: 1 / (1 + (pi x)^2)."""
    return 1.0 / (1.0 + (torch.pi * x) ** 2)


@pytest.mark.parametrize("detach", [False, True])
@pytest.mark.parametrize(("first", "second"), [(0.75, 0.5), (1.5, 0.75), (1.25, 1.125)])
def test_gradient_of_two_steps_by_hand(first, second, detach):
    """s1 = h(i1 - 1), v = i1 (1 - s1), s2 = h(d v + i2 - 1), loss = 3 s1 + 5 s2.

    d s2 / d i1 = h'(u2) d (1 - s1 - i1 h'(u1)), without the last term when the reset is detached.
    """
    decay = 0.5
    current = torch.tensor([first, second], dtype=torch.float64, requires_grad=True)
    spikes = LIF(membrane_decay=decay, detach_reset=detach)(current)
    (3 * spikes[0] + 5 * spikes[1]).backward()
    fires = float(first > 1)
    u2 = decay * first * (1 - fires) + second
    slope1 = atan_derivative(torch.tensor(first - 1.0, dtype=torch.float64))
    slope2 = atan_derivative(torch.tensor(u2 - 1.0, dtype=torch.float64))
    through_reset = 0.0 if detach else first * slope1
    expected = torch.stack(
        [3 * slope1 + 5 * slope2 * decay * (1 - fires - through_reset), 5 * slope2]
    )
    assert spikes.tolist() == [fires, float(u2 > 1)]
    # snnTorch's spike functions answer in float32, so gradients are rounded to it on the way.
    assert torch.allclose(current.grad, expected, rtol=1e-6, atol=1e-6)


def test_detaching_the_reset_changes_the_gradient_only():
    currents = torch.randn(4, 50, dtype=torch.float64)
    results = []
    for detach in (False, True):
        leaf = currents.clone().requires_grad_()
        spikes = LIF(detach_reset=detach)(leaf)
        spikes.sum().backward()
        results.append((spikes.detach(), leaf.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert not torch.allclose(results[0][1], results[1][1])


def test_the_pure_equation_takes_any_spike_function():
    current = torch.tensor([[2.0], [0.6], [0.8]])
    spikes = lif(current, membrane_decay=0.5, threshold=1.0, spike_function=step)
    assert spikes.flatten().tolist() == [1, 0, 1]


def test_no_state_between_calls():
    neuron = LIF()
    nearly = torch.full((1, 3), 0.9)
    assert not neuron(nearly).any()
    assert not neuron(nearly).any()  # 0.45 + 0.9 would fire
    before = copy.deepcopy(neuron.state_dict())
    neuron(torch.randn(3, 2, 5))  # another shape: nothing is remembered
    assert all(torch.equal(v, before[k]) for k, v in neuron.state_dict().items())


def test_a_batch_is_independent_samples():
    currents = torch.randn(6, 9, 4)
    together = LIF()(currents)
    alone = torch.cat([LIF()(currents[:, i : i + 1]) for i in range(9)], dim=1)
    assert torch.equal(together, alone)


def test_it_is_a_snntorch_leaky_with_a_hard_reset():
    neuron = LIF(membrane_decay=0.25, threshold=1.5)
    assert isinstance(neuron, snntorch.Leaky)
    assert neuron.reset_mechanism == "zero"
    assert not neuron.reset_delay
    assert float(neuron.beta) == 0.25
    assert float(neuron.threshold) == 1.5


def test_instances_are_not_kept_alive():
    """snnTorch holds every neuron in a global list; ours must not stay there."""
    before = len(snntorch.SpikingNeuron.instances)
    neuron = LIF()
    neuron(torch.randn(2, 3))
    gone = weakref.ref(neuron)
    del neuron
    gc.collect()
    assert gone() is None
    assert len(snntorch.SpikingNeuron.instances) == before


def test_make_neuron_hands_everything_on():
    config = tiny_config(membrane_decay=0.25, threshold=0.5, detach_reset=True, surrogate="sigmoid")
    neuron = make_neuron(config)
    assert isinstance(neuron, LIF)
    assert (neuron.membrane_decay, neuron.firing_threshold) == (0.25, 0.5)
    assert neuron.detach_reset
    leaf = torch.tensor([[0.4]], requires_grad=True)
    neuron(leaf).sum().backward()
    x = torch.tensor(-0.1)
    sigmoid = 25 * torch.exp(-25 * x) / (torch.exp(-25 * x) + 1) ** 2
    assert torch.allclose(leaf.grad, sigmoid, rtol=1e-5)


def test_and_is_the_truth_table():
    a, b = torch.tensor([0.0, 0.0, 1.0, 1.0]), torch.tensor([0.0, 1.0, 0.0, 1.0])
    assert And()(a, b).tolist() == [0, 0, 0, 1]
