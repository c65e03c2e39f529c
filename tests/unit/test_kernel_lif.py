"""The fused LIF kernel: the plain equation's spikes bit for bit, and its gradients."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import SURROGATES, assert_near, constants, needs_kernels, plain_lif
from tiny_models import settled_model, tiny_config, tiny_images

from spikingmoe.functional.attention import sdsa_channel_sum
from spikingmoe.kernels import cpu, fused_lif
from spikingmoe.layers.neuron import LIF
from spikingmoe.layers.stem import Stem

pytestmark = needs_kernels


def run(neurons_of, current, weights):
    leaf = current.detach().clone().requires_grad_()
    spikes = neurons_of(leaf)
    (weights * spikes).sum().backward()
    return spikes.detach(), leaf.grad


def random_case(shape, seed=0, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    current = scale * torch.randn(shape, generator=generator) + 0.3
    return current, torch.randn(shape, generator=generator)


def gradients_by_hand(neurons, currents, weights):
    found = run(
        lambda x: fused_lif(x, neurons),
        torch.tensor(currents)[:, None],
        torch.tensor(weights)[:, None],
    )
    return [t.flatten().tolist() for t in found]


@pytest.mark.parametrize(
    ("detach", "expected"),
    [
        (False, [0.753973, 0.505420, 1.153602]),
        (True, [1.037262, 0.837551, 1.153602]),
    ],
)
def test_three_steps_with_one_spike_by_hand(detach, expected):
    """Currents 0.75, 1, 0.5 and the loss s0 + 2 s1 + 4 s2, decay 0.5, threshold 1.

    u = 0.75, 1.375 (spike), 0.5;  h' = 1 / (1 + (pi (u - 1))^2) = 0.618486, 0.418776, 0.288400
    dL/du2 = 4 h'2 = 1.153602
    dL/du1 = 2 h'1 + 0.5 dL/du2 (0 - 1.375 h'1) = 0.837551 - 0.332132 = 0.505420
    dL/du0 = 1 h'0 + 0.5 dL/du1 (1 - 0.75 h'0) = 0.618486 + 0.252710 * 0.536136 = 0.753973

    and with a detached reset dL/du1 = 2 h'1, dL/du0 = h'0 + 0.5 * 0.837551 = 1.037262.
    """
    neurons = constants(detach_reset=detach)
    spikes, gradient = gradients_by_hand(neurons, [0.75, 1.0, 0.5], [1.0, 2.0, 4.0])
    assert spikes == [0, 1, 0]
    assert gradient == pytest.approx(expected, abs=2e-6)


@pytest.mark.parametrize(
    ("surrogate", "expected"),
    [
        ("atan", 0.716957),  # 1 / (1 + (0.2 pi)^2)
        ("fast_sigmoid", 1 / 36),  # 1 / (25 * 0.2 + 1)^2
        ("sigmoid", 0.166201),  # 25 s (1 - s), s = 1 / (1 + e^-5) = 0.993307
    ],
)
def test_surrogates_by_hand(surrogate, expected):
    """0.2 above the threshold; all three are even functions, so 0.2 below gives the same."""
    neurons = constants(surrogate=surrogate, threshold=0.5, membrane_decay=0.0)
    spikes, gradient = gradients_by_hand(neurons, [0.7, 0.3], [1.0, -1.0])
    assert spikes == [1, 0]
    assert gradient == pytest.approx([expected, -expected], rel=2e-5)


def test_the_threshold_is_strict():
    spikes, _ = gradients_by_hand(constants(), [1.0, 0.5, 0.5000001], [1.0, 1.0, 1.0])
    assert spikes == [0, 0, 1]


def as_given(x):
    return x


def not_contiguous(x):
    """The same values with the axes in another order in memory."""
    return x.movedim(0, -1).contiguous().movedim(-1, 0)


def every_second(x):
    return torch.stack([x, x + 9], dim=-1).flatten(-2)[..., ::2]


LAYOUTS = (as_given, not_contiguous, every_second)


@settings(max_examples=60, deadline=None)
@given(
    steps=st.integers(1, 16),
    size=st.lists(st.sampled_from([1, 2, 3, 5, 17, 130]), max_size=3),
    decay=st.sampled_from([0.0, 0.3, 0.5, 0.9, 0.99]),
    threshold=st.sampled_from([0.1, 0.7, 1.0, 1.75]),
    surrogate=st.sampled_from(SURROGATES),
    detach_reset=st.booleans(),
    layout=st.sampled_from(LAYOUTS),
    seed=st.integers(0, 10**6),
)
def test_it_is_the_plain_equation(
    steps, size, decay, threshold, surrogate, detach_reset, layout, seed
):
    neurons = constants(
        membrane_decay=decay, threshold=threshold, surrogate=surrogate, detach_reset=detach_reset
    )
    current, weights = random_case((steps, *size), seed)
    spikes, gradient = run(lambda x: fused_lif(layout(x), neurons), current, layout(weights))
    expected, expected_gradient = run(lambda x: plain_lif(x, neurons), current, weights)
    assert torch.equal(spikes, expected)
    largest = float(expected_gradient.abs().max())
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-4, atol=1e-5 * largest)


@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("decay", [0.5, 0.9])
def test_bfloat16_is_computed_in_float32(surrogate, decay):
    """The spikes of the same currents in float32; gradients are rounded once, at the end."""
    neurons = constants(membrane_decay=decay, surrogate=surrogate)
    current, weights = (t.bfloat16() for t in random_case((7, 33, 9)))
    spikes, gradient = run(lambda x: fused_lif(x, neurons), current, weights)
    expected, expected_gradient = run(
        lambda x: plain_lif(x, neurons), current.float(), weights.float()
    )
    assert spikes.dtype == gradient.dtype == torch.bfloat16
    assert torch.equal(spikes.float(), expected)
    # Half a unit in the last of 8 bits; float32 noise matters for gradients that cancel to near 0.
    torch.testing.assert_close(gradient.float(), expected_gradient, rtol=2**-8 + 1e-4, atol=1e-5)
    coarse, _ = run(lambda x: plain_lif(x, neurons), current, weights)
    assert not torch.equal(coarse, spikes), "membranes rounded to bfloat16 would spike elsewhere"


def test_rounding_to_bfloat16_is_that_of_torch():
    """To the nearest, ties to even. With threshold 0 and currents 0, dL/du0 = w0 + 0.5 w1."""
    w0, w1 = [1.0, 1.0 + 2**-7, 1.0, -1.0, 3.0], [2**-7, 2**-7, 3 * 2**-7, -(2**-7), float("inf")]
    leaf = torch.zeros(2, 5, dtype=torch.bfloat16, requires_grad=True)
    spikes = fused_lif(leaf, constants(threshold=0.0, surrogate="fast_sigmoid"))
    spikes.backward(torch.tensor([w0, w1]).bfloat16())
    assert leaf.grad[0].tolist() == [1.0, 1.0 + 2**-6, 1.0 + 2**-6, -1.0, float("inf")]
    wide = torch.linspace(-3, 5, 4001)
    leaf = wide.bfloat16()[None].requires_grad_()
    fused_lif(leaf, constants(surrogate="fast_sigmoid")).backward(torch.ones_like(leaf))
    u = leaf.detach().float() - 1
    assert torch.equal(leaf.grad, (1.0 / (25.0 * u.abs() + 1.0).square()).bfloat16())


def test_autocast_gives_spikes_in_its_dtype_and_gradients_in_that_of_the_current():
    current, weights = random_case((4, 50))
    leaf = current.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        spikes = LIF()(leaf)
    assert spikes.dtype == torch.bfloat16
    spikes.backward(weights.bfloat16())
    expected, gradient = run(
        lambda x: plain_lif(x, constants()), current, weights.bfloat16().float()
    )
    assert torch.equal(spikes.float(), expected)
    assert leaf.grad.dtype == torch.float32
    assert_near(leaf.grad, gradient, 1e-5)


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_a_copied_neuron_still_has_its_kernel(surrogate):
    neuron = copy.deepcopy(LIF(surrogate=surrogate))
    assert neuron.has_kernel
    assert LIF(surrogate=surrogate, detach_reset=True).constants == constants(
        surrogate=surrogate, detach_reset=True
    )


def test_numbers_that_are_none():
    """NaN does not fire, and stays; it touches no other neuron."""
    current, _ = random_case((4, 40))
    current[1, 3] = float("nan")
    spikes = fused_lif(current, constants())
    assert not spikes[1:, 3].any()
    others = torch.arange(40) != 3
    assert torch.equal(spikes[:, others], plain_lif(current, constants())[:, others])


@pytest.mark.parametrize("given", [3, 5, 2])
def test_currents_of_another_number_of_steps_are_refused(given):
    """Not read beyond their end: neither by the fused operation nor by the kernel itself."""
    torch.manual_seed(0)
    config = tiny_config(time_steps=4)
    stem, frames = Stem(config), torch.randn(given, 2, 1, 6, 6)
    with pytest.raises(
        ValueError, match=f"currents of {given} steps for a window of 4; needs 1 or 4"
    ):
        stem(frames)
    neurons = LIF(membrane_decay=0.5, threshold=1.0).constants
    x = torch.randn(given, 3, 8)
    with pytest.raises(ValueError, match="needs 1 or 4"):
        cpu.lif_forward(x, 4, None, neurons, torch.float32)
    with pytest.raises(ValueError, match="needs 1 or 4"):
        cpu.lif_backward(x, torch.randn(4, 3, 8), None, neurons)


@pytest.mark.parametrize("dispatch", ["masked", "grouped"])
def test_a_model_that_is_all_bfloat16_runs_in_its_plain_form(dispatch, monkeypatch):
    """Without autocast every weight has the type, the fused norms' float32 would not fit it."""
    config = tiny_config(dispatch=dispatch, local_mixing="conv")
    model = settled_model(config).bfloat16()
    images = tiny_images(config, 5).bfloat16()
    logits = model(images).logits
    assert logits.dtype == torch.bfloat16
    assert torch.isfinite(logits.float()).all()


def test_sums_over_tokens_are_not_rounded_to_bfloat16():
    spikes = torch.ones(1, 1, 515, 2, dtype=torch.bfloat16)
    assert sdsa_channel_sum(spikes, torch.ones(2)).tolist() == [[[515.0, 515.0]]]
