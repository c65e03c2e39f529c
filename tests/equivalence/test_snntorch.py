"""Our neuron, all steps at once, against snnTorch's, one step at a time."""

import pytest
import snntorch
import torch
from kernel_cases import needs_kernels

from spikingmoe.functional.surrogate import make_surrogate
from spikingmoe.kernels import fused_lif
from spikingmoe.layers.neuron import LIF


def stock_spikes(currents, decay, threshold, surrogate):
    neuron = snntorch.Leaky(
        beta=decay,
        threshold=threshold,
        spike_grad=make_surrogate(surrogate),
        reset_mechanism="zero",
        reset_delay=False,
    )
    membrane = torch.zeros_like(currents[0])
    spikes = []
    for current in currents:
        spike, membrane = neuron(current, membrane)
        spikes.append(spike)
    return torch.stack(spikes)


def both(currents, decay, threshold, surrogate, weights, ours=None):
    """[(spikes, gradient)] of stock snnTorch and ours, for the loss sum(weights * spikes)."""
    results = []
    neuron = LIF(membrane_decay=decay, threshold=threshold, surrogate=surrogate)
    for run in (
        lambda x: stock_spikes(x, decay, threshold, surrogate),
        neuron if ours is None else lambda x: ours(x, neuron.constants),
    ):
        leaf = currents.clone().requires_grad_()
        spikes = run(leaf)
        (weights * spikes).sum().backward()
        results.append((spikes.detach(), leaf.grad))
    return results


def assert_gradients_agree(stock, ours):
    """The same chain rule in another order; snnTorch's spike functions answer in float32.

    Terms of up to the size of the largest gradient cancel, so that is what the rounding relates to.
    """
    largest = float(stock.abs().max())
    assert largest > 0.1
    assert torch.allclose(stock, ours, rtol=1e-5, atol=2e-6 * largest)


@pytest.mark.parametrize("surrogate", ["atan", "fast_sigmoid", "sigmoid"])
@pytest.mark.parametrize("threshold", [0.5, 1.0, 1.75])
@pytest.mark.parametrize("decay", [0.0, 0.25, 0.5, 0.9])
def test_spikes_are_equal_and_gradients_agree(decay, threshold, surrogate):
    generator = torch.Generator().manual_seed(7)
    currents = torch.randn((6, 40, 5), generator=generator, dtype=torch.float64) + 0.3
    weights = torch.randn((6, 40, 5), generator=generator, dtype=torch.float64)
    stock, ours = both(currents, decay, threshold, surrogate, weights)
    assert torch.equal(stock[0], ours[0])
    assert 0.02 < float(ours[0].mean()) < 0.9, "a test without spikes shows nothing"
    assert_gradients_agree(stock[1], ours[1])


def test_float32_spikes_are_equal_bit_for_bit():
    currents = torch.randn((8, 1000), generator=torch.Generator().manual_seed(1)) + 0.3
    stock, ours = both(currents, 0.5, 1.0, "atan", torch.ones(8, 1000))
    assert torch.equal(stock[0], ours[0])
    assert_gradients_agree(stock[1], ours[1])


@needs_kernels
@pytest.mark.parametrize("surrogate", ["atan", "fast_sigmoid", "sigmoid"])
@pytest.mark.parametrize(("decay", "threshold"), [(0.5, 1.0), (0.0, 0.3), (0.9, 1.0), (0.37, 0.7)])
def test_the_fused_kernel_is_a_stock_leaky(decay, threshold, surrogate):
    """float32, each window from 1 to 16 steps: the same bits, and gradients through the reset."""
    for steps in range(1, 17):
        generator = torch.Generator().manual_seed(steps)
        currents = torch.randn((steps, 157, 3), generator=generator) + 0.3
        weights = torch.randn((steps, 157, 3), generator=generator)
        stock, ours = both(currents, decay, threshold, surrogate, weights, ours=fused_lif)
        assert torch.equal(stock[0], ours[0])
        assert 0.02 < float(ours[0].mean()) < 0.9
        assert_gradients_agree(stock[1], ours[1])


@needs_kernels
@pytest.mark.parametrize("surrogate", ["atan", "fast_sigmoid", "sigmoid"])
def test_the_fused_kernel_in_bfloat16_is_a_stock_leaky_in_float32(surrogate):
    """The same currents; gradients come back with the 8 bits of bfloat16."""
    generator = torch.Generator().manual_seed(4)
    currents = torch.randn((6, 157, 3), generator=generator).bfloat16()
    weights = torch.randn((6, 157, 3), generator=generator).bfloat16()
    wide = currents.float(), 0.5, 1.0, surrogate, weights.float()
    stock, _ = both(*wide)
    _, ours = both(currents, 0.5, 1.0, surrogate, weights, ours=fused_lif)
    assert ours[0].dtype == ours[1].dtype == torch.bfloat16
    assert torch.equal(stock[0], ours[0].float())
    torch.testing.assert_close(ours[1].float(), stock[1], rtol=2**-8 + 1e-4, atol=1e-5)


def test_equality_with_the_threshold():
    """Dyadic currents that often land on the threshold exactly: neither fires there."""
    generator = torch.Generator().manual_seed(3)
    currents = torch.randint(-4, 9, (5, 2000), generator=generator).double() / 8
    stock, ours = both(currents, 0.5, 1.0, "atan", torch.ones_like(currents))
    assert torch.equal(stock[0], ours[0])
    at_threshold = currents[0] == 1.0
    assert at_threshold.any()
    assert not ours[0][0][at_threshold].any()


def test_the_test_can_fail():
    """snnTorch's own default (subtract, delayed) is another neuron."""
    currents = torch.rand((6, 100), generator=torch.Generator().manual_seed(0)) * 3
    default = snntorch.Leaky(beta=0.5)
    membrane, spikes = torch.zeros(100), []
    for current in currents:
        spike, membrane = default(current, membrane)
        spikes.append(spike)
    assert not torch.equal(torch.stack(spikes), LIF()(currents))
