"""Which form runs: fused where there is a kernel and nobody looks in between, plain elsewhere."""

import pytest
import torch
from kernel_cases import needs_kernels
from snntorch import surrogate as snn_surrogate
from torch import nn

from spikingmoe.kernels import can_fuse
from spikingmoe.layers.fire import fire, normalise
from spikingmoe.layers.neuron import LIF

pytestmark = needs_kernels


def fused(spikes):
    """Whether spikes (or normalised currents) come from a fused operation."""
    names = ("_LifBackward", "_NormLifBackward", "_NormBackward")
    node = spikes.grad_fn
    while type(node).__name__ in ("ViewBackward0", "UnsafeViewBackward0"):
        node = node.next_functions[0][0]
    return type(node).__name__ in names


def make_x(*shape, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=dtype)


@pytest.mark.parametrize(
    ("dtype", "shape", "expected"),
    [
        (torch.float32, (2, 3), True),
        (torch.bfloat16, (2, 3), True),
        (torch.float64, (2, 3), False),
        (torch.float16, (2, 3), False),
        (torch.float32, (2, 0), False),
    ],
)
def test_dtypes_and_empty_tensors(dtype, shape, expected):
    x = torch.zeros(shape, dtype=dtype, requires_grad=True)
    assert can_fuse(x) == expected
    spikes = LIF()(x)
    assert fused(spikes) == expected
    assert spikes.dtype == dtype
    assert spikes.shape == shape
    spikes.sum().backward()
    assert x.grad.shape == shape


def test_no_kernel_on_meta():
    assert not can_fuse(torch.zeros(2, 3, device="meta"))
    assert LIF()(torch.zeros(2, 3, device="meta")).shape == (2, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fire_takes_the_fused_form_in_float32(dtype):
    norm = nn.BatchNorm1d(5).to(dtype)
    assert fused(fire(LIF(), norm, make_x(3, 4, 5, dtype=dtype))) == (dtype == torch.float32)
    assert fused(normalise(norm, make_x(3, 4, 5, dtype=dtype))) == (dtype == torch.float32)


def test_a_spike_grad_put_in_later_is_used():
    """Fused kernels know three surrogates by name; any other function must not be overruled."""
    x, neuron, norm = make_x(3, 4, 5), LIF(), nn.BatchNorm1d(5)
    gradients = []
    for spike_grad in (None, snn_surrogate.straight_through_estimator()):
        neuron.spike_grad = spike_grad or neuron.spike_grad
        for run in (neuron, lambda x: fire(neuron, norm, x)):
            leaf = x.clone().requires_grad_()
            spikes = run(leaf)
            assert fused(spikes) == (spike_grad is None)
            (spikes * make_x(3, 4, 5).sin()).sum().backward()
            gradients.append((spikes.detach(), leaf.grad))
    assert not neuron.has_kernel
    for before, after in zip(gradients[:2], gradients[2:], strict=True):
        assert torch.equal(before[0], after[0])
        assert not torch.allclose(before[1], after[1])


def test_a_subclass_of_the_neuron_is_not_replaced():
    class Silent(LIF):
        def forward(self, current):
            return super().forward(current) * 0

    assert not fire(Silent(), nn.BatchNorm1d(5), make_x(3, 40, 5)).any()


def test_a_subclass_of_the_norm_is_not_replaced():
    class Shifted(nn.BatchNorm1d):
        def forward(self, input):
            return super().forward(input) + 9

    assert fire(LIF(), Shifted(5), make_x(3, 40, 5)).all()


@pytest.mark.parametrize("options", [{"affine": False}, {"track_running_stats": False}])
def test_norms_with_options_that_have_no_kernel(options):
    norm, x = nn.BatchNorm1d(5, **options), make_x(3, 40, 5).requires_grad_()
    spikes = fire(LIF(), norm, x)
    assert type(spikes.grad_fn).__name__ == "_LifBackward"  # the neurons have one all the same
    assert torch.equal(spikes, LIF()(norm(x.flatten(0, 1)).view(x.shape)))


def test_a_cumulative_average_has_no_kernel():
    norm, x = nn.BatchNorm1d(5, momentum=None), make_x(3, 40, 5).requires_grad_()
    assert type(fire(LIF(), norm, x).grad_fn).__name__ == "_LifBackward"
    assert torch.allclose(norm.running_mean, x.mean((0, 1)), atol=1e-6)


def test_a_single_row_has_no_variance():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        fire(LIF(), nn.BatchNorm1d(5), make_x(1, 1, 5))


def hook(module, kind, seen):
    """Register a hook of one kind that keeps what it is shown."""

    def keep(_, *given):
        seen.append(given)

    return getattr(module, f"register_{kind}")(keep)


HOOKS = ("forward_hook", "forward_pre_hook", "full_backward_hook", "full_backward_pre_hook")


@pytest.mark.parametrize("where", ["neuron", "norm"])
@pytest.mark.parametrize("kind", HOOKS)
def test_hooks_see_what_they_should(kind, where):
    norm, neuron, seen = nn.BatchNorm1d(5), LIF(), []
    module = {"norm": norm, "neuron": neuron}[where]
    handle = hook(module, kind, seen)
    x, weights = make_x(3, 40, 5).requires_grad_(), make_x(3, 40, 5).cos()
    spikes = fire(neuron, norm, x)
    (spikes * weights).sum().backward()
    assert len(seen) == 1
    shown = [t for t in seen[0] for t in (t if isinstance(t, tuple) else (t,))]
    with torch.no_grad():
        current = torch.nn.functional.batch_norm(
            x.flatten(0, 1), None, None, norm.weight, norm.bias, True
        )
    expected = {  # by hook: the last tensor that it is shown
        ("norm", "forward_hook"): current,
        ("norm", "forward_pre_hook"): x.detach().flatten(0, 1),
        ("neuron", "forward_hook"): spikes.detach(),
        ("neuron", "forward_pre_hook"): current.view_as(x),
        ("neuron", "full_backward_hook"): weights,
        ("neuron", "full_backward_pre_hook"): weights,
    }
    if (where, kind) in expected:
        assert torch.allclose(shown[-1], expected[where, kind], atol=1e-6)
    else:
        assert shown[-1].shape == (120, 5)
        assert shown[-1].any()
    handle.remove()
    assert type(fire(neuron, norm, x).grad_fn).__name__ == "_NormLifBackward"


def test_a_hook_on_the_neuron_alone_keeps_its_kernel():
    """A neuron called by itself runs its hooks anyway."""
    neuron, seen = LIF(), []
    neuron.register_forward_hook(lambda *given: seen.append(given[-1]))
    spikes = neuron(make_x(3, 5).requires_grad_())
    assert fused(spikes)
    assert seen[0] is spikes


def test_hooks_on_all_modules():
    seen = []
    handle = nn.modules.module.register_module_forward_hook(lambda m, *_: seen.append(m))
    norm, neuron = nn.BatchNorm1d(5), LIF()
    try:
        fire(neuron, norm, make_x(3, 40, 5))
    finally:
        handle.remove()
    assert seen == [norm, neuron]


def test_a_second_derivative_is_refused():
    """Not silently wrong: surrogates have none."""
    x, weights = make_x(3, 5).requires_grad_(), torch.ones(3, 5, requires_grad=True)
    (gradient,) = torch.autograd.grad((LIF()(x) * weights).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def test_torch_compile_takes_the_plain_form():
    """A compiler sees no C++ behind a pointer; it fuses the plain equation by itself."""
    neuron = LIF()
    x = make_x(3, 4, 5)
    compiled = torch.compile(neuron, backend="eager", fullgraph=True)
    assert torch.equal(compiled(x), neuron(x))


def test_fake_tensors_have_no_memory():
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        x = torch.zeros(3, 4, 5)
        assert not can_fuse(x)
        assert LIF()(x).shape == (3, 4, 5)
