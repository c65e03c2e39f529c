"""The Triton kernels against the compiled CPU kernels: run by tests/unit/test_kernel_triton.py.

Without a GPU they run in Triton's interpreter (TRITON_INTERPRET=1, set before triton is imported) on CPU
tensors; with one, compiled, on that.
"""

import pytest
import torch
from kernel_cases import SURROGATES, assert_near, constants

from spikingmoe.config import ModelConfig
from spikingmoe.functional.dispatch import plan_dispatch
from spikingmoe.kernels import backends, cpu, cuda
from spikingmoe.kernels.build import KernelWarning
from spikingmoe.kernels.constants import Sequences
from spikingmoe.layers.expert import Experts
from spikingmoe.layers.fire import fire
from spikingmoe.layers.neuron import LIF

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
FLOAT32 = 2e-5  # of the largest value: exp of another library, sums in another order
DTYPES = [torch.float32, torch.bfloat16]


def random(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def there(argument):
    """The same argument where the Triton kernels run."""
    if isinstance(argument, torch.Tensor):
        return argument.to(DEVICE)
    if isinstance(argument, (tuple, list)):
        return type(argument)(map(there, argument))
    if isinstance(argument, Sequences):
        return Sequences(**{name: there(value) for name, value in vars(argument).items()})
    return argument


def both(name, *arguments, **options):
    """[what the CPU kernel returns, what its Triton twin returns], as lists of CPU tensors."""
    results = []
    for found in (
        getattr(cpu, name)(*arguments, **options),
        getattr(cuda, name)(*map(there, arguments), **options),
    ):
        found = found if isinstance(found, tuple) else (found,)
        results.append([t if t is None else t.cpu() for t in found])
    return results


def assert_same(results):
    """Gradients in the dtype of the currents (rounded once), and sums in float64."""
    for i, (expected, found) in enumerate(zip(*results, strict=True)):
        if expected is None:
            assert found is None
            continue
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        # The interpreter cuts the digits that bfloat16 lacks, where a GPU and the C++ round.
        tolerance = 2**-7 if expected.dtype == torch.bfloat16 else FLOAT32
        assert_near(found, expected, tolerance, f"result {i}")


def affine_of(*shape):
    return 1 + 0.2 * random(*shape, seed=1), 0.3 * random(*shape, seed=2), random(*shape, seed=3)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [1, 33, 200])
@pytest.mark.parametrize(
    ("steps", "still", "with_map"),
    [(1, False, True), (4, False, False), (4, True, False), (4, False, True), (4, True, True)],
)
def test_neurons(dtype, channels, steps, still, with_map):
    x = random(1 if still else steps, 41, channels, dtype=dtype)
    affine = affine_of(channels) if with_map else None
    neurons = constants(membrane_decay=0.9)
    spikes = both("lif_forward", x, steps, affine and affine[:2], neurons, dtype)
    assert torch.equal(*(s[0] for s in spikes))
    assert 0.02 < spikes[0][0].float().mean() < 0.9
    grad = random(steps, 41, channels, dtype=dtype, seed=5)
    assert_same(both("lif_backward", x, grad, affine, neurons))


@pytest.mark.parametrize("steps", [7, 16])
@pytest.mark.parametrize("detach_reset", [False, True])
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_surrogates_and_windows(surrogate, detach_reset, steps):
    neurons = constants(surrogate=surrogate, detach_reset=detach_reset, threshold=0.7)
    x, grad = random(steps, 20, 5), random(steps, 20, 5, seed=5)
    assert torch.equal(*(s[0] for s in both("lif_forward", x, steps, None, neurons, x.dtype)))
    assert_same(both("lif_backward", x, grad, None, neurons))


def test_bfloat16_spikes_of_float32_currents():
    x, affine = random(4, 20, 5), affine_of(5)
    spikes = both("lif_forward", x, 4, affine[:2], constants(), torch.bfloat16)
    assert torch.equal(*(s[0] for s in spikes))
    grad = random(4, 20, 5, dtype=torch.bfloat16, seed=5)
    assert_same(both("lif_backward", x, grad, affine, constants()))


def sequences_of(chosen):
    plan = plan_dispatch(chosen)
    return plan, Sequences(
        first=plan.first_sequence,
        starts=plan.starts,
        gaps=plan.gaps,
        per_expert=plan.sequences_per_expert,
        longest=plan.window,
    )


@pytest.mark.parametrize(
    ("dtype", "channels", "gated", "surrogate"),
    [
        (torch.float32, 3, True, "atan"),
        (torch.float32, 3, False, "sigmoid"),
        (torch.float32, 70, True, "fast_sigmoid"),  # two blocks of channels
        (torch.bfloat16, 3, True, "atan"),
    ],
)
def test_sequences(dtype, channels, gated, surrogate):
    """Three experts with random gaps, of which one has no rows; two blocks of sequences."""
    tokens = 20 if channels == 70 else 300
    chosen = torch.rand(4, tokens, 3, generator=torch.Generator().manual_seed(1)) < 0.4
    chosen[..., 1] = False
    plan, sequences = sequences_of(chosen)
    assert plan.gaps.max() > 1
    x, affine = random(len(plan.rows), channels, dtype=dtype), affine_of(3, channels)
    neurons = constants(membrane_decay=0.9, surrogate=surrogate)
    spikes = both("sequences_forward", x, affine[:2], sequences, neurons)
    assert torch.equal(*(s[0] for s in spikes))
    assert 0.02 < spikes[0][0].float().mean() < 0.9
    grad = random(*x.shape, dtype=dtype, seed=5)
    arguments = (x, grad, affine, sequences, neurons)
    assert_same(both("sequences_backward", *arguments, gated=gated))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(500, 1), (301, 3), (50, 33), (9, 200)])
def test_norms(dtype, shape):
    x, g = random(*shape, dtype=dtype), random(*shape, seed=4)
    scale, shift, mean = affine_of(shape[1])
    assert_same(both("norm_statistics", x))
    assert_same(both("norm_gradient_sums", g, x, mean))
    assert_same(both("row_products", g, x))
    for grad in (g, g.to(dtype)):
        outs = [torch.empty_like(x), torch.empty_like(x).to(DEVICE)]
        cpu.norm_combine(grad, x, (scale, shift, mean), outs[0])
        cuda.norm_combine(*there((grad, x, (scale, shift, mean))), outs[1])
        assert_same([[outs[0]], [outs[1].cpu()]])
    outs = [torch.empty(shape), torch.empty(shape, device=DEVICE)]
    cpu.norm_apply(x, scale, shift, outs[0])
    cuda.norm_apply(*there((x, scale, shift)), outs[1])
    assert_same([[outs[0]], [outs[1].cpu()]])


# -- through the layers ----------------------------------------------------------------------------


def gradients(module, run, x):
    """Result and gradients on the device of the Triton kernels."""
    module.zero_grad()
    leaf = x.clone().requires_grad_()
    out = run(leaf)
    out.float().square().sum().add(
        (out.float() * random(*out.shape).to(out.device)).sum()
    ).backward()
    found = [out, leaf.grad, *[p.grad for p in module.parameters() if p.grad is not None]]
    found += [b for b in module.buffers() if b.is_floating_point()]
    return [t.detach().cpu() for t in found]


def on_both(monkeypatch, make, run, x):
    results = []
    for device, kernels in (("cpu", cpu), (DEVICE, cuda)):
        monkeypatch.setitem(backends.BACKENDS, device, kernels.__name__)
        module = make().to(device)
        results.append(gradients(module, lambda x, m=module: run(m, x), x.to(device)))
    for i, (expected, found) in enumerate(zip(*results, strict=True)):
        if expected.any():
            assert_near(found, expected, FLOAT32, f"tensor {i}")
        else:
            assert torch.equal(found, expected)
    return results


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("frames", [1, 3])
def test_fire(training, frames, monkeypatch):
    def make():
        norm = torch.nn.BatchNorm1d(7).train(training)
        norm.weight.data.copy_(1 + 0.2 * random(7))
        return norm

    def run(norm, x):
        return fire(LIF(), norm, x, steps=3)

    results = on_both(monkeypatch, make, run, random(frames, 40, 7))
    assert torch.equal(results[0][0], results[1][0])


def test_experts(monkeypatch):
    """Grouped dispatch, gates with a gradient, one expert with too few rows and one without any."""
    mask = (torch.rand(3, 2, 20, 4, generator=torch.Generator().manual_seed(3)) < 0.5).float()
    mask[..., 1] = 0.0
    mask[..., 2] = 0.0
    mask[0, 0, :5, 2] = 1.0

    def make():
        torch.manual_seed(0)
        config = ModelConfig(
            num_experts=4,
            embed_dim=5,
            num_heads=1,
            expert_width=37,
            routing="threshold",
            gate_gradient="chosen",
            dispatch="grouped",
        )
        return Experts(config)

    def run(experts, x):
        soft = x.mean(-1, keepdim=True)  # so that the gates' gradient shows in that of x
        gates = mask.to(x.device) * (1 + (soft - soft.detach()))
        return experts((x > 0).float() * (1 + (x - x.detach())), gates)[0]

    on_both(monkeypatch, make, run, random(3, 2, 20, 5))


def test_there_is_a_kernel_for_the_dtypes_of_a_gpu():
    assert set(cuda.FORMATS) == {torch.float32, torch.bfloat16, torch.float16}
    x = random(3, 20, 5)
    (spikes,) = both("lif_forward", x, 3, None, constants(), torch.float32)[0]
    half = cuda.lif_forward(x.half().to(DEVICE), 3, None, constants(), torch.float16).cpu()
    wide = cpu.lif_forward(x.half().float(), 3, None, constants(), torch.float32)
    assert torch.equal(half.float(), wide)
    assert spikes.any()


def test_where_triton_fails_it_says_so_once(monkeypatch):
    def fail(*_):
        raise RuntimeError("Failed to find C compiler")

    assert cuda.available()
    cuda.available.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(cuda, "lif_forward", fail)
        message = "Failed to find C compiler.*Triton needs a C compiler"
        with pytest.warns(KernelWarning, match=message) as heard:
            assert [cuda.available(), cuda.available()] == [False, False]
        assert len(heard) == 1
    cuda.available.cache_clear()
    assert cuda.available()
