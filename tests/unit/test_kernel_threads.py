"""Whatever the number of threads, the same bits: blocks of work depend on the shapes alone."""

import pytest
import torch
from kernel_cases import constants, needs_kernels

from spikingmoe.functional.dispatch import plan_dispatch
from spikingmoe.kernels import fused_expert_lif, fused_lif, fused_norm, fused_norm_lif, own_moments

pytestmark = needs_kernels
DTYPES = [torch.float32, torch.bfloat16]
NEURONS = constants(membrane_decay=0.9)


@pytest.fixture(autouse=True)
def _threads():
    yield
    torch.set_num_threads(1)


def random(*shape, dtype=torch.float32, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def lif_case(dtype):
    x = random(5, 9001, 7, dtype=dtype).requires_grad_()
    return fused_lif(x, NEURONS), [x]


def norm_lif_case(dtype, frames=4):
    x = random(frames, 3001, 33, dtype=dtype).requires_grad_()
    weight, bias = random(33, seed=1).requires_grad_(), random(33, seed=2).requires_grad_()
    moments = own_moments(x, 1e-5)
    return fused_norm_lif(x, 4, weight, bias, moments, NEURONS), [x, weight, bias]


def still_norm_lif_case(dtype):
    return norm_lif_case(dtype, frames=1)


def norm_case(dtype):
    x, gates = random(20000, 5, dtype=dtype).requires_grad_(), torch.ones(20000).requires_grad_()
    affine = [random(2, 5, seed=seed).requires_grad_() for seed in (1, 2)]
    first = own_moments(x[:15000], 1e-5)
    mean, var = first.mean.expand(2, 5), first.var.expand(2, 5)
    moments = type(first)(mean=mean, var=var, eps=1e-5, own=(True, True))
    out = fused_norm(x, *affine, moments, sizes=[15000, 5000], gates=gates)
    return out, [x, *affine, gates]


def expert_case(dtype):
    chosen = torch.rand(4, 700, 3, generator=torch.Generator().manual_seed(4)) < 0.4
    plan = plan_dispatch(chosen)
    x = random(len(plan.rows), 40, dtype=dtype).requires_grad_()
    gates = torch.ones(len(plan.rows)).requires_grad_()
    affine = [random(3, 40, seed=seed).requires_grad_() for seed in (1, 2)]
    first = own_moments(x, 1e-5)
    mean, var = first.mean.expand(3, 40), first.var.expand(3, 40)
    moments = type(first)(mean=mean, var=var, eps=1e-5, own=(True, True, False))
    return fused_expert_lif(x, *affine, gates, moments, plan, NEURONS), [x, *affine, gates]


CASES = [lif_case, norm_lif_case, still_norm_lif_case, norm_case, expert_case]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES)
def test_the_same_bits_for_any_number_of_threads(case, dtype):
    results = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        out, leaves = case(dtype)
        out.backward(random(*out.shape, dtype=out.dtype, seed=9))
        results.append([out.detach(), *[leaf.grad for leaf in leaves]])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert a.any()
            assert torch.equal(a, b)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(20011, 1), (20011, 3), (6007, 33), (511, 200), (40, 20000)])
def test_statistics_have_the_same_bits(shape, dtype):
    x, results = random(*shape, dtype=dtype), []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        moments = own_moments(x, 1e-5)
        results.append(torch.stack([moments.mean, moments.var]))
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])
    assert torch.allclose(results[0][0], x.double().mean(0), atol=1e-6)
