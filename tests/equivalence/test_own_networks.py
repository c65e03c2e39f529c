"""Networks that users compose of our layers: torch, reference and Lava send the same spikes."""

import numpy as np
import pytest
import torch
from own_networks import BASE, DENSE, IMAGE, NETWORKS, settled_network
from sklearn.datasets import load_digits
from tiny_models import tiny_images
from torch import nn
from torch.nn import functional as F

from hardware.energy import estimate
from hardware.errors import LoweringError
from hardware.ir import LIF as LIFPopulation
from hardware.ir import Relay
from hardware.lowering import lower, record_torch
from hardware.passes.pipeline import prepare
from hardware.simulate import simulate
from hardware.verify import compare_traces
from spikingmoe.layers import (
    LIF,
    Convolution,
    Flatten,
    LinearNorm,
    QKAttention,
    Readout,
    Residual,
    Stem,
)
from spikingmoe.model import Block
from spikingmoe.sequential import SpikingSequential

IMAGES = tiny_images(BASE, 6)


@pytest.mark.parametrize("residual", ["relay", "unrolled"])
@pytest.mark.parametrize("name", NETWORKS)
def test_torch_and_reference_send_the_same_spikes(name, residual):
    model = settled_network(name)
    graph = lower(model, residual=residual)
    torch64, ours = record_torch(model, IMAGES, residual=residual), simulate(graph, IMAGES)
    neurons = {p.name for p in graph.of_kind(LIFPopulation)}
    assert neurons <= set(torch64.spikes)
    comparison = compare_traces(graph, torch64, ours)
    assert comparison.same, comparison.first
    assert all(0 < ours.spikes[n].mean() < 1 for n in neurons if n.startswith("layers.1"))
    sums = [p.name for p in graph.of_kind(Relay) if p.name.startswith("stream.")]
    assert bool(sums) == (residual == "relay" and name not in ("cnn", "mlp"))


@pytest.mark.parametrize("name", NETWORKS)
def test_both_residual_forms_are_one_integer_network(name):
    model = settled_network(name)
    left, right = (
        simulate(lower(model, residual=form), IMAGES, arithmetic="fixed")
        for form in ("relay", "unrolled")
    )
    for population in set(left.spikes) & set(right.spikes):
        np.testing.assert_array_equal(left.spikes[population], right.spikes[population])
    np.testing.assert_array_equal(left.logits, right.logits)


@pytest.mark.lava
@pytest.mark.parametrize("arithmetic", ["float", "fixed"])
def test_lava_sends_the_same_spikes(arithmetic):
    graph, images = prepare(lower(settled_network("branches")), arithmetic), IMAGES[:2]
    comparison = compare_traces(
        graph, simulate(graph, images), simulate(graph, images, backend="lava-stock")
    )
    assert comparison.same, comparison.first


def test_it_learns_with_plain_torch_code_and_stays_the_same_network():
    """Handwritten digits, a small spiking CNN, Adam: far above chance, and lowered exactly."""
    digits = load_digits()
    images = torch.tensor(digits.images[:, None] / 8 - 1, dtype=torch.float32)
    labels = torch.tensor(digits.target)
    torch.manual_seed(0)
    model = SpikingSequential(
        [
            Convolution(1, 8, stride=2),
            LIF(),
            Convolution(8, 12),
            LIF(),
            Flatten(),
            Readout(192, 10),
        ],
        input_shape=(1, 8, 8),
        time_steps=2,
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(4):
        for batch in torch.randperm(1400).split(100):
            loss = F.cross_entropy(model(images[batch]).logits, labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    test, truth = images[1400:], labels[1400:]
    assert (model(test).logits.argmax(1) == truth).float().mean() > 0.8
    graph = lower(model)
    ours = simulate(graph, test)
    assert compare_traces(graph, record_torch(model, test), ours).same
    fixed = simulate(graph, test, arithmetic="fixed")
    assert (fixed.predictions == truth.numpy()).mean() > 0.8
    assert estimate(graph, ours).by_part.keys() >= {"head"}


def test_event_frames_enter_step_by_step():
    model = settled_network("cnn")
    stills = IMAGES[:, None].repeat(1, 3, 1, 1, 1)
    graph = lower(model)
    same = record_torch(model, stills)
    np.testing.assert_array_equal(same.logits, record_torch(model, IMAGES).logits)
    frames = torch.stack([IMAGES, -IMAGES, IMAGES.flip(-1)], dim=1)
    torch64, ours = record_torch(model, frames), simulate(graph, frames)
    assert compare_traces(graph, torch64, ours).same
    assert not np.array_equal(ours.logits, same.logits)


def test_routers_of_all_blocks_are_there_for_the_losses():
    model = settled_network("feedback").train()
    out = model(tiny_images(BASE, 4))
    assert len(out.routing) == len(model.routers()) == 2
    before = model.routers()[0].homeostatic_bias.clone()
    model.adapt(out.routing, 0.1)
    assert not torch.equal(before, model.routers()[0].homeostatic_bias)


# ---- what is refused


class Impostor(nn.Module):
    def forward(self, x):
        return x


class SoftLIF(LIF):
    def forward(self, current):
        return current.sigmoid()


def network(*layers):
    return SpikingSequential([*layers, Readout(4, 3)], input_shape=IMAGE, time_steps=3)


@pytest.mark.parametrize(
    ("layers", "path", "reason"),
    [
        ([Convolution(1, 4), Impostor()], "layers.1", "no rule for Impostor; use .*Convolution"),
        ([Convolution(1, 4), SoftLIF()], "layers.1", "no rule for SoftLIF"),
        ([Convolution(1, 4)], "layers.1", "reads spikes and gets real-valued currents"),
        ([Convolution(1, 4), Convolution(4, 4)], "layers.1", "put a LIF before it"),
        ([Convolution(1, 4), LIF(), LIF()], "layers.2", "reads currents and gets spikes"),
        ([Convolution(1, 4), LIF(), Block(DENSE, 0, None)], "layers.2", "reads currents"),
        ([Convolution(2, 4), LIF()], "layers.0", "takes 2 channels of a map, gets 1 on a map of 6"),
        ([Convolution(1, 8), LIF()], "layers.2", "takes 4 inputs, gets 8 on a map of 6 x 6"),
        ([Flatten(), LinearNorm(9, 4), LIF()], "layers.1", "takes 9 inputs, gets 36 as one token"),
        ([Convolution(1, 4), LIF(), Stem(BASE)], "layers.2", "a Stem reads the image; put it first"),
        ([Stem(BASE), Residual(Impostor())], "layers.1.branch", "no rule for Impostor"),
    ],
)  # fmt: skip
def test_what_no_rule_knows_is_refused_by_its_path(layers, path, reason):
    with pytest.raises(LoweringError, match=reason) as caught:
        lower(network(*layers))
    assert caught.value.module == path


def test_parts_that_were_put_in_later_are_refused():
    model = network(Convolution(1, 4), LIF())
    model.layers[0].conv.conv = nn.Conv2d(1, 4, 3, padding=1, bias=True)
    with pytest.raises(LoweringError, match=r"cannot lower 'layers\.0\.conv\.conv': no rule"):
        lower(model)
    attention = Residual(QKAttention(DENSE))
    attention.branch.gate = Impostor()
    with pytest.raises(LoweringError, match=r"layers\.1\.branch\.gate"):
        lower(network(Stem(DENSE), attention))


def test_a_network_ends_with_its_one_readout():
    for layers in ([Flatten()], [Readout(4, 3), Readout(4, 3)], []):
        with pytest.raises(ValueError, match="ends with its one Readout"):
            SpikingSequential(layers, input_shape=IMAGE, time_steps=1)
    with pytest.raises(ValueError, match="images must be squares"):
        SpikingSequential([Readout(4, 3)], input_shape=(1, 4, 6), time_steps=1)
    with pytest.raises(ValueError, match=r"SpikingSequential: images have shape \(2, 1, 5, 5\)"):
        network(Convolution(1, 4), LIF())(torch.zeros(2, 1, 5, 5))
