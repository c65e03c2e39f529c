"""Batch norm with the neurons behind it, fused, against both in float64, one after the other."""

import copy

import pytest
import torch
from kernel_cases import assert_near, constants, first_clear_seed, margin, needs_kernels, plain_lif
from torch import nn

from spikingmoe.kernels import fused_norm, own_moments
from spikingmoe.layers.fire import fire, normalise
from spikingmoe.layers.neuron import LIF

pytestmark = needs_kernels
FLOAT32 = 2e-5  # of the largest value: sums of thousands of float32 terms in another order
CHANNELS = (1, 3, 33, 96, 200)


def make_norm(channels, kind=nn.BatchNorm2d):
    generator = torch.Generator().manual_seed(channels)
    norm = kind(channels)
    norm.weight.data.uniform_(0.5, 1.5, generator=generator)
    norm.bias.data.uniform_(-0.2, 0.8, generator=generator)
    norm.running_mean.uniform_(-0.3, 0.3, generator=generator)
    norm.running_var.uniform_(0.5, 2.0, generator=generator)
    return norm


def plain_fire(norm, x, steps, neurons):
    """As torch has it: channels second, frames and images in one batch."""
    current = norm(x.flatten(0, -2)).view(x.shape)
    return plain_lif(current.expand(steps, *x.shape[1:]), neurons)


def double(norm):
    """The same norm in float64, as torch computes it."""
    twin = nn.BatchNorm1d(norm.num_features, eps=norm.eps, momentum=norm.momentum).double()
    twin.load_state_dict(norm.state_dict())
    return twin.train(norm.training)


def make_x(norm, shape, steps, neurons=None):
    """float32 input whose membranes stay clear of the threshold."""

    def draw(seed):
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

    def nearest(seed):
        x = draw(seed).double()
        current = double(norm)(x.flatten(0, -2)).view(x.shape)
        return margin(current.expand(steps, *x.shape[1:]), neurons or constants())

    return draw(first_clear_seed(nearest))


def compare(norm, x, steps, neurons=None):
    """Spikes, gradients and buffers of the fused form in float32 against float64."""
    neurons = neurons or constants()
    options = {name: getattr(neurons, name) for name in ("surrogate", "detach_reset")}
    reference = double(norm)
    generator = torch.Generator().manual_seed(7)
    weights = torch.randn((steps, *x.shape[1:]), generator=generator)
    leaf, wide = x.clone().requires_grad_(), x.double().requires_grad_()
    spikes = fire(LIF(**options), norm, leaf, steps=steps)
    assert type(spikes.grad_fn).__name__ == "_NormLifBackward"
    expected = plain_fire(reference, wide, steps, neurons)
    assert torch.equal(spikes.double(), expected)
    assert 0.02 < spikes.mean() < 0.95
    (spikes * weights).sum().backward()
    (expected * weights).sum().backward()
    assert_near(leaf.grad, wide.grad, FLOAT32, "x")
    assert_near(norm.weight.grad, reference.weight.grad, FLOAT32, "weight")
    assert_near(norm.bias.grad, reference.bias.grad, FLOAT32, "bias")
    for name, buffer in norm.named_buffers():
        torch.testing.assert_close(
            buffer.double(), reference.get_buffer(name).double(), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("channels", CHANNELS)
def test_fire_is_norm_then_neurons(channels, training):
    norm = make_norm(channels).train(training)
    compare(norm, make_x(norm, (4, 2, 5, 7, channels), 4), 4)
    assert norm.num_batches_tracked == int(training)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("channels", CHANNELS)
def test_a_still_image_is_one_frame(channels, training):
    """Its current is the same at each of 5 steps; statistics are those of the one frame."""
    norm = make_norm(channels).train(training)
    compare(norm, make_x(norm, (1, 3, 5, 7, channels), 5), 5)


@pytest.mark.parametrize("detach_reset", [False, True])
@pytest.mark.parametrize("surrogate", ["fast_sigmoid", "sigmoid"])
def test_other_neurons(surrogate, detach_reset):
    neurons = constants(surrogate=surrogate, detach_reset=detach_reset)
    norm = make_norm(6, nn.BatchNorm1d)
    compare(norm, make_x(norm, (3, 41, 6), 3, neurons), 3, neurons)


def test_many_blocks():
    """More than one block of work per step, the last one not full, and rows that do not tile."""
    norm = make_norm(3)
    compare(norm, make_x(norm, (2, 9001, 3), 2), 2)


def test_running_statistics_over_several_steps():
    """As torch's modules keep them, with a momentum that is not the default."""
    norm = make_norm(5)
    norm.momentum = 0.3
    reference = double(norm)
    for seed in range(4):
        x = torch.randn(3, 4, 2, 2, 5, generator=torch.Generator().manual_seed(seed)) * 2 + seed
        fire(LIF(), norm, x)
        reference(x.double().flatten(0, -2))
    assert norm.num_batches_tracked == 4
    torch.testing.assert_close(norm.running_mean.double(), reference.running_mean)
    torch.testing.assert_close(norm.running_var.double(), reference.running_var)


@pytest.mark.parametrize("training", [True, False])
def test_the_backward_pass_uses_what_the_forward_pass_saw(training):
    """Buffers that move between forward and backward, or another mode, do not change gradients."""
    norm = make_norm(3).train(training)
    leaves = (torch.randn(2, 30, 3, requires_grad=True), norm.weight, norm.bias)
    spikes = fire(LIF(), norm, leaves[0])
    expected = torch.autograd.grad(spikes.sum(), leaves, retain_graph=True)
    norm.train(not training)
    norm.running_mean.fill_(9.0)
    norm.running_var.fill_(9.0)
    found = torch.autograd.grad(spikes.sum(), leaves)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


@pytest.mark.parametrize("channels", CHANNELS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_statistics_with_a_large_mean(channels, dtype):
    """mean / std = 1000 (8 in bfloat16, which has no more digits): a sum of squares loses all."""
    mean = 1000.0 if dtype == torch.float32 else 8.0
    generator = torch.Generator().manual_seed(2)
    x = (mean + torch.randn(6000, channels, generator=generator)).to(dtype)
    moments = own_moments(x, 1e-5)
    wide = x.double()
    assert float((moments.mean - wide.mean(0)).abs().max()) < 1e-6  # of a standard deviation
    torch.testing.assert_close(moments.var, wide.var(0, unbiased=False), rtol=2e-6, atol=0)


def test_currents_with_a_large_mean():
    """scale x + shift rounds at 1000 units: half of 2^-14 per product and sum, as torch's own."""
    norm = make_norm(33)
    x = 1000.0 + torch.randn(4, 500, 33, generator=torch.Generator().manual_seed(3))
    expected = double(norm)(x.double().flatten(0, -2)).view(x.shape).detach()
    stock = copy.deepcopy(norm)(x.reshape(-1, 33, 1, 1)).view(x.shape).detach()
    error = float((normalise(norm, x).detach() - expected).abs().max())
    assert error < 4 * float((stock - expected).abs().max())
    assert error < 3e-4


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("channels", CHANNELS)
def test_normalise_is_batch_norm(channels, training):
    norm = make_norm(channels).train(training)
    reference = double(norm)
    x = torch.randn(3, 4, 5, 7, channels, generator=torch.Generator().manual_seed(8))
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(9))
    leaf, wide = x.clone().requires_grad_(), x.double().requires_grad_()
    found = normalise(norm, leaf)
    expected = reference(wide.flatten(0, -2)).view(x.shape)
    assert_near(found, expected, 1e-6, "value")
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    assert_near(leaf.grad, wide.grad, FLOAT32, "x")
    assert_near(norm.weight.grad, reference.weight.grad, FLOAT32, "weight")
    assert_near(norm.bias.grad, reference.bias.grad, FLOAT32, "bias")
    torch.testing.assert_close(norm.running_var.double(), reference.running_var)


def test_fused_norm_of_three_experts():
    """A norm per expert on its rows, one without any; the gradient of gates that are 1."""
    sizes, generator = [20, 0, 31], torch.Generator().manual_seed(0)
    x, weights = torch.randn(2, 51, 7, generator=generator)
    leaves = [x, 1 + 0.1 * torch.randn(3, 7, generator=generator), torch.ones(3, 7), torch.ones(51)]
    found = [t.clone().requires_grad_() for t in leaves]
    wide = [t.double().requires_grad_() for t in leaves]
    mean, var = torch.zeros(3, 7, dtype=torch.float64), torch.ones(3, 7, dtype=torch.float64)
    moments = own_moments(x[:20], 1e-5)
    mean[0], var[0] = moments.mean, moments.var
    moments = type(moments)(mean=mean, var=var, eps=1e-5, own=(True, False, False))
    out = fused_norm(*found[:3], moments, sizes=sizes, gates=found[3])
    x64, weight, bias, gates = wide
    first = torch.nn.functional.batch_norm(x64[:20], None, None, weight[0], bias[0], True)
    last = x64[20:] / (1 + 1e-5) ** 0.5 * weight[2] + bias[2]
    expected = torch.cat([first, last]) * gates[:, None]
    assert_near(out, expected, 1e-6, "value")
    (out * weights).sum().backward()
    (expected * weights).sum().backward()
    for name, a, b in zip(("x", "weight", "bias", "gates"), found, wide, strict=True):
        assert_near(a.grad, b.grad, FLOAT32, name)
    assert not found[1].grad[1].any()


def test_bfloat16_currents():
    """Sums and spikes are of the bfloat16 input, in float32; gradients are rounded at the end."""
    norm = make_norm(33)
    x = torch.randn(3, 200, 33, generator=torch.Generator().manual_seed(5)).bfloat16()
    wide, reference = x.float().requires_grad_(), copy.deepcopy(norm)
    leaf = x.clone().requires_grad_()
    weights = torch.randn(x.shape, generator=torch.Generator().manual_seed(6)).bfloat16()
    spikes = fire(LIF(), norm, leaf)
    expected = fire(LIF(), reference, wide)
    assert spikes.dtype == torch.bfloat16
    assert torch.equal(spikes.float(), expected)
    (spikes * weights).float().sum().backward()
    (expected * weights.float()).sum().backward()
    assert leaf.grad.dtype == torch.bfloat16
    assert_near(leaf.grad.float(), wide.grad, 2**-7, "x")  # rounded before and after the norm
    assert_near(norm.weight.grad, reference.weight.grad, 1e-6, "weight")
