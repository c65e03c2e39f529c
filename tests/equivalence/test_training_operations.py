"""What training counts in torch is what the energy model counts on the lowered graph."""

import pytest
import torch
from tiny_models import settled_model, tiny_config, tiny_images

from hardware.energy import count_operations
from hardware.errors import LoweringError
from hardware.lowering import lower
from hardware.simulate import simulate
from spikingmoe.train.operations import OperationMeter

FAMILY = [
    {},
    {"attention": "sdsa"},
    {"attention": "dwconv", "local_mixing": "conv"},
    {"hold": "window"},
    {"routing": "threshold"},
    {"routing": "expert_choice"},
    {"routing": "dense", "num_experts": 1, "top_k": 1},
    {"route_by": "image", "prompt": "none"},
    {"early_depths": (1,), "embed_dim": 16, "stem_strides": (1, 1)},
]


def measured(model, images):
    meter = OperationMeter(model)
    with meter.watching():
        model(images)
        return meter, meter.measure(images)


@pytest.mark.parametrize("options", FAMILY, ids=str)
def test_every_operation_is_counted_exactly(options):
    config = tiny_config(**options)
    model, images = settled_model(config).double(), tiny_images(config, 8).double()
    meter, activity = measured(model, images)
    graph = lower(model)
    counts = count_operations(graph, simulate(graph, images))
    assert float(activity.synops.detach()) + meter.relay_synops(images) == counts.synops_per_sample


def test_rates_are_those_of_the_trace():
    config = tiny_config()
    model, images = settled_model(config).double(), tiny_images(config, 8).double()
    meter, activity = measured(model, images)
    trace = simulate(lower(model), images)
    assert "blocks.0.moe.experts.1.hidden" in meter.populations
    assert "blocks.0.moe.gate" not in meter.populations
    rates = [trace.firing_rate(name) for name in meter.populations]
    torch.testing.assert_close(activity.rates.detach(), torch.tensor(rates, dtype=torch.float64))


def test_a_spike_costs_its_fan_out():
    """The readout's neurons each reach all classes: their spikes' gradient is the fan-out per image."""
    config = tiny_config()
    model, images = settled_model(config), tiny_images(config, 4)
    seen = []
    meter = OperationMeter(model)
    with meter.watching():
        handle = model.head_neuron.register_forward_hook(lambda _m, _i, out: seen.append(out))
        model(images)
        handle.remove()
        seen[0].retain_grad()
        meter.measure(images).synops.backward()
    assert (seen[0].grad == config.num_classes / len(images)).all()


@pytest.mark.parametrize("dispatch", ["masked", "grouped", "auto"])
def test_gradients_reach_every_weight_through_the_kernels(dispatch):
    config = tiny_config(dispatch=dispatch, gate_gradient="margin")
    model, images = settled_model(config).train(), tiny_images(config, 32)
    meter = OperationMeter(model)
    with meter.watching():
        model(images)
        meter.measure(images).synops.backward()
    behind = ("head.", "homeostatic", "temperature")  # after the last spike
    for name, parameter in model.named_parameters():
        if not name.startswith(behind):
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name
    assert model.blocks[0].moe.experts.dispatch == dispatch
    assert not model.head_neuron._forward_hooks


def test_a_network_that_cannot_be_lowered_is_refused():
    model = settled_model(tiny_config(attention="ssa"))
    with pytest.raises(LoweringError, match="ssa multiplies two spike matrices"):
        OperationMeter(model)
