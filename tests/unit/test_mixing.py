"""Local mixing against a loop over neighbours, and what it lets a token see."""

import pytest
import torch
from tiny_models import settled_model, tiny_config, tiny_images

from hardware.lowering.ann import count_ann_layers
from spikingmoe.config.twins import relu_twin
from spikingmoe.layers.mixing import make_mixing
from spikingmoe.model import SpikingTransformer

SIDE, D = 3, 4


def lif(current, decay=0.5, threshold=1.0):
    """The contract's neuron, a step and a value at a time."""
    membrane, spikes = torch.zeros_like(current[0]), []
    for now in current:
        membrane = decay * membrane + now
        spike = (membrane > threshold).to(now)
        membrane = membrane * (1 - spike)
        spikes.append(spike)
    return torch.stack(spikes)


def test_conv_mixing_is_a_sum_over_neighbours():
    torch.manual_seed(0)
    module = make_mixing(tiny_config(local_mixing="conv", embed_dim=D, num_heads=2))
    module = module.double().eval()
    norm = module.conv.norm
    for values in (norm.running_mean, norm.weight.data, norm.bias.data):
        values.normal_()
    norm.running_var.uniform_(0.5, 2)
    stream = 1.5 * torch.randn(3, 2, SIDE * SIDE, D, dtype=torch.float64)
    spikes = lif(stream)
    assert 0.1 < spikes.mean() < 0.9
    weight, summed = module.conv.conv.weight, torch.zeros_like(stream)
    for row in range(SIDE):
        for column in range(SIDE):
            for dy in (-1, 0, 1):
                for dx in (-1, 0, 1):
                    y, x = row + dy, column + dx
                    if 0 <= y < SIDE and 0 <= x < SIDE:
                        summed[:, :, row * SIDE + column] += (
                            spikes[:, :, y * SIDE + x] @ weight[:, :, dy + 1, dx + 1].T
                        )
    normed = (summed - norm.running_mean) / (norm.running_var + norm.eps).sqrt()
    torch.testing.assert_close(module(stream), normed * norm.weight + norm.bias)


@pytest.mark.parametrize("kind", ["conv", "dwconv"])
def test_a_map_that_is_no_square_is_refused(kind):
    module = make_mixing(tiny_config(local_mixing=kind, embed_dim=D, num_heads=2))
    with pytest.raises(ValueError, match=f"'{kind}': 8 tokens are no square map"):
        module(torch.zeros(2, 1, 8, D))


@pytest.mark.parametrize(("kind", "sees"), [("none", False), ("conv", True), ("dwconv", True)])
def test_without_it_a_token_knows_nothing_of_pixels_beyond_the_stem(kind, sees):
    """The first pixel changes; do tokens whose patch does not touch it notice?"""
    config = tiny_config(
        local_mixing=kind, image_size=12, stem_strides=(2, 2), routing="dense", num_experts=1
    )
    model = settled_model(config)
    images = tiny_images(config, 20)
    other = images.clone()
    other[:, :, 0, 0] += 5.0
    heads = []
    model.head_neuron.register_forward_hook(lambda _m, inputs, _out: heads.append(inputs[0]))
    model(images), model(other)
    changed = (heads[0] != heads[1]).any(dim=0).any(dim=0).any(dim=-1)
    side = config.tokens_per_side
    assert changed.unflatten(0, (side, side))[0, 0]
    assert changed.unflatten(0, (side, side))[1:, 1:].any() == sees


@pytest.mark.parametrize(
    ("kind", "macs"),
    [("conv", 8 * 8 * (4 * 4 + 4 * 6 + 9)), ("dwconv", 9 * 8 * 8 + 8 * (4 * 4 + 4 * 6 + 9))],
)
def test_multiply_accumulates_by_hand(kind, macs):
    """N = 9, D = 8: taps of corners, edges and centre of a 3x3 map."""
    dense = tiny_config(local_mixing=kind, routing="dense", num_experts=1)
    model = settled_model(relu_twin(dense))
    layers = {c.name: c for c in count_ann_layers(model, tiny_images(model.config, 5))}
    assert layers["mixing"].macs == macs
    assert 0 < layers["mixing"].nonzero_macs < macs


def test_none_adds_no_parameters():
    model = SpikingTransformer(tiny_config())
    assert not [name for name, _ in model.named_parameters() if "mixing" in name]
