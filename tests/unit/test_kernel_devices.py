"""Around the kernels nothing assumes a device: meta tensors, which refuse to meet those of the CPU."""

import dataclasses
import sys
from types import ModuleType

import pytest
import torch

from spikingmoe.config import ModelConfig
from spikingmoe.functional.dispatch import plan_dispatch
from spikingmoe.kernels import backends
from spikingmoe.layers.expert import Experts
from spikingmoe.layers.fire import fire, normalise
from spikingmoe.layers.neuron import LIF


def sums(x, *shape):
    return tuple(x.new_empty(shape, dtype=torch.float64) for _ in range(2))


class Shapes:
    """Kernels that compute nothing but shapes, and want all tensors on one device."""

    FORMATS = (torch.float32,)
    calls: list[str]

    def available(self):
        return True

    def lif_forward(self, x, steps, affine, neurons, dtype):
        return x.new_empty(steps, *x.shape[1:], dtype=dtype)

    def lif_backward(self, x, grad_spikes, affine, neurons):
        return torch.empty_like(x), *(sums(x, x.shape[-1]) if affine else (None, None))

    def sequences_forward(self, x, affine, sequences, neurons):
        return torch.empty_like(x)

    def sequences_backward(self, x, grad_spikes, affine, sequences, neurons, *, gated):
        return torch.empty_like(x), *sums(x, *affine[0].shape), x.new_empty(len(x))

    def norm_statistics(self, x):
        return sums(x, x.shape[-1])

    def norm_apply(self, x, scale, shift, out):
        pass

    def norm_gradient_sums(self, g, x, mean):
        return sums(x, x.shape[-1])

    def norm_combine(self, g, x, factors, out):
        pass

    def row_products(self, a, b):
        return a.new_empty(len(a))


def devices(argument):
    """Those of all tensors in it."""
    if isinstance(argument, torch.Tensor):
        return {argument.device.type}
    if dataclasses.is_dataclass(argument):
        argument = list(vars(argument).values())
    if isinstance(argument, (tuple, list)):
        return set().union(*map(devices, argument))
    return set()


@pytest.fixture
def calls(monkeypatch):
    """The kernels that were called for meta tensors."""
    module, shapes, names = ModuleType("shapes_only"), Shapes(), []

    def checked(name, function):
        def call(*arguments, **options):
            names.append(name)
            assert devices(arguments) <= {"meta"}, name
            return function(*arguments, **options)

        return call

    for name in vars(Shapes):
        if not name.startswith("_") and name not in ("FORMATS", "available"):
            setattr(module, name, checked(name, getattr(shapes, name)))
    module.FORMATS, module.available = shapes.FORMATS, shapes.available
    monkeypatch.setitem(sys.modules, "shapes_only", module)
    monkeypatch.setitem(backends.BACKENDS, "meta", "shapes_only")
    # (Autocast does not know the device.)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)
    return names


def to_meta(plan):
    tensors = {k: v.to("meta") for k, v in vars(plan).items() if isinstance(v, torch.Tensor)}
    return dataclasses.replace(plan, **tensors)


@pytest.mark.parametrize("training", [True, False])
def test_experts(calls, training):
    config = ModelConfig(
        num_experts=3, embed_dim=4, num_heads=1, expert_width=6, gate_gradient="chosen"
    )
    experts = Experts(config).to("meta").train(training)
    chosen = torch.rand(3, 40, 3, generator=torch.Generator().manual_seed(0)) < 0.4
    plan = plan_dispatch(chosen)
    rows = len(plan.rows)
    x = torch.empty(rows, 4, device="meta", requires_grad=True)
    gates = torch.empty(rows, device="meta", requires_grad=True)
    hidden, out = experts._rows(x, gates, to_meta(plan))
    assert hidden.shape == (rows, 6)
    (out.sum() + hidden.sum()).backward()
    assert x.grad.shape == (rows, 4)
    assert gates.grad.shape == (rows,)
    assert {p.grad.device.type for p in experts.parameters()} == {"meta"}
    assert {"sequences_forward", "sequences_backward", "norm_gradient_sums"} <= set(calls)


@pytest.mark.parametrize("training", [True, False])
def test_neurons_and_norms(calls, training):
    norm = torch.nn.BatchNorm1d(5).to("meta").train(training)
    x = torch.empty(3, 20, 5, device="meta", requires_grad=True)
    for run in (LIF(), lambda x: fire(LIF(), norm, x), lambda x: normalise(norm, x)):
        run(x).sum().backward()
        assert x.grad.device.type == "meta"
    assert {"lif_forward", "lif_backward", "norm_apply", "norm_combine"} <= set(calls)
