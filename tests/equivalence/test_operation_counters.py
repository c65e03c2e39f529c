"""Our synaptic operations against NeuroBench's and SpikingJelly's, layer by layer of a dense twin.

Both see linear layers and convolutions in torch; ANDs, sums, gates and relays of the graph have no
module that they could count. The comparison is on the layers that both sides have.
"""

import pytest
import torch
from tiny_models import settled_model, tiny_config, tiny_images

from hardware.energy import Operation, count_operations
from hardware.lowering import lower
from hardware.passes.pipeline import prepare
from hardware.simulate import simulate
from spikingmoe.config import dense_twin

SAMPLES = 8
TOLERANCE = 0.01  # of an operation count; the counts below are in fact equal
SPIKING = {
    "stem.convs.1.conv": "stem.lif0 -> stream.0",
    "blocks.0.attention.query.linear": "blocks.0.attention.x -> blocks.0.attention.q",
    "blocks.0.attention.key.linear": "blocks.0.attention.x -> blocks.0.attention.k",
    "blocks.0.attention.project.linear": "blocks.0.attention.and -> stream.1",
    "blocks.0.mlp.mlp.up.linear": "blocks.0.mlp.x -> blocks.0.mlp.hidden",
    "blocks.0.mlp.mlp.down.linear": "blocks.0.mlp.hidden -> stream.2",
}


@pytest.fixture(scope="module")
def both():
    """(graph's tallies by synapse, by module: the layer and what it was given) on the same images."""
    model = settled_model(dense_twin(tiny_config())).double().eval()
    images = tiny_images(model.config, SAMPLES).double()
    seen = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear):
            module.register_forward_hook(lambda m, x, _, name=name: seen.update({name: (m, x[0])}))
    with torch.no_grad():
        model(images)
    graph = prepare(lower(model))
    counts = count_operations(graph, simulate(graph, images))
    return {tally.where: tally.operations for tally in counts.synapses}, seen


def close(count):
    assert count > 0, "nothing was counted"
    return pytest.approx(count, rel=TOLERANCE)


def neurobench(layer, given):
    macs = pytest.importorskip("neurobench.metrics.utils.layers.macs")
    count, spiking = macs.single_layer_MACs(given.detach(), layer)
    return float(count), bool(spiking)


def spikingjelly(layer, given):
    counters = pytest.importorskip("spikingjelly.activation_based.op_counter")
    counter = counters.SynOpCounter()
    with torch.no_grad(), counters.DispatchCounterMode([counter]):
        layer(given)
    return float(counter.get_total())


@pytest.mark.parametrize("module", SPIKING)
def test_accumulates_are_those_of_neurobench(both, module):
    tallies, seen = both
    count, spiking = neurobench(*seen[module])
    assert spiking
    assert count == close(tallies[SPIKING[module]][Operation.ACCUMULATE])


@pytest.mark.parametrize("module", SPIKING)
def test_accumulates_are_those_of_spikingjelly(both, module):
    tallies, seen = both
    assert spikingjelly(*seen[module]) == close(tallies[SPIKING[module]][Operation.ACCUMULATE])


def test_multiply_accumulates_of_the_image_are_those_of_neurobench(both):
    tallies, seen = both
    layer, given = seen["stem.convs.0.conv"]
    count, spiking = neurobench(layer, given)
    assert not spiking
    # torch convolves a still image once; the graph is sent it at every step.
    steps = tiny_config().time_steps
    assert count * steps == close(tallies["input -> stem.lif0"][Operation.MULTIPLY_ACCUMULATE])


def test_the_head_reads_every_token_and_step_where_torch_reads_their_mean(both):
    tallies, seen = both
    layer, given = seen["head"]
    count, spiking = neurobench(layer, given)
    assert not spiking
    assert count <= layer.weight.numel() * SAMPLES
    assert tallies["head.x -> head.readout"][Operation.ACCUMULATE] > count
