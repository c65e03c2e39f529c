"""Stages: the stem's channels, the downsampling between two streams, and their names in the graph."""

from dataclasses import replace

import pytest
import torch
from tiny_models import settled_model, tiny_config, tiny_images
from torch import nn
from torch.nn import functional as F

from hardware.energy.parts import part_of
from hardware.ir.nodes import LIF, Relay
from hardware.lowering import lower
from hardware.passes.scale_groups import scale_groups
from spikingmoe.layers.downsample import Downsample
from spikingmoe.layers.stem import Stem

THREE = tiny_config(early_depths=(1, 1), depth=1, num_heads=4, image_size=12, expert_width=8)


def test_the_stem_ends_with_the_channels_of_the_first_stage():
    stem = Stem(THREE)
    assert [conv.conv.out_channels for conv in stem.convs] == [4, 2]
    frames = tiny_images(THREE, 2)[None]
    assert stem(frames).shape == (3, 2, 36, 2)
    assert Stem(replace(THREE, early_depths=())).convs[-1].conv.out_channels == 8


@pytest.mark.parametrize(("side", "after"), [(6, 3), (5, 3), (4, 2), (3, 2), (2, 1), (1, 1)])
def test_downsampling_halves_the_map_and_doubles_the_channels(side, after):
    module = Downsample(THREE.stage(0), THREE.stage(1))
    out = module(torch.randn(3, 5, side**2, 2))
    assert out.shape == (3, 5, after**2, 4)


def test_downsampling_is_the_equation_row_by_row():
    """U' = BN(conv(LIF(U))), written out with loops over tokens, taps and channels."""
    torch.manual_seed(0)
    module = Downsample(THREE.stage(1), THREE.stage(2)).double().eval()
    norm = module.conv.norm
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2.0)
    nn.init.normal_(norm.bias)
    stream = 2 * torch.randn(3, 2, 16, 4, dtype=torch.float64)
    out = module(stream)
    membrane = torch.zeros(2, 16, 4, dtype=torch.float64)
    weight = module.conv.conv.weight
    for t in range(3):
        membrane = 0.5 * membrane + stream[t]
        spikes = (membrane > 1.0).double()
        membrane = membrane * (1 - spikes)
        for row in range(2):
            for column in range(2):
                total = torch.zeros(2, 8, dtype=torch.float64)
                for i in range(3):
                    for j in range(3):
                        y, x = 2 * row + i - 1, 2 * column + j - 1
                        if 0 <= y < 4 and 0 <= x < 4:
                            total += spikes[:, 4 * y + x] @ weight[:, :, i, j].T
                expected = F.batch_norm(
                    total, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
                )
                assert torch.allclose(out[t, :, 2 * row + column], expected, atol=1e-12)


def test_only_spikes_pass_between_stages():
    """Currents below the threshold leave nothing but the norm's bias: no number leaks through."""
    module = Downsample(THREE.stage(0), THREE.stage(1)).eval()
    quiet = torch.full((1, 2, 36, 2), 0.9)
    assert module(quiet).equal(module(torch.zeros_like(quiet)))
    assert not module(2 * quiet).equal(module(quiet))


def test_a_map_that_is_no_square_is_refused():
    with pytest.raises(ValueError, match="downsample: 6 tokens are no square map"):
        Downsample(THREE.stage(0), THREE.stage(1))(torch.zeros(1, 1, 6, 2))


def test_gradients_reach_the_stage_before():
    module = Downsample(THREE.stage(0), THREE.stage(1))
    stream = torch.randn(2, 4, 36, 2, requires_grad=True)
    module(stream).square().sum().backward()
    assert stream.grad is not None
    assert (stream.grad != 0).float().mean() > 0.2


# ---- in the graph


@pytest.fixture(scope="module")
def graph():
    return lower(settled_model(THREE))


def test_every_stage_has_its_own_stream_and_scale(graph):
    relays = [p for p in graph.of_kind(Relay) if p.name.startswith("stream.")]
    assert [p.name for p in relays] == [f"stream.{i}" for i in range(9)], "names are unique"
    assert [p.shape for p in relays] == [(6, 6, 2)] * 3 + [(3, 3, 4)] * 3 + [(2, 2, 8)] * 3
    groups = {}
    for population in (*graph.of_kind(Relay), *graph.of_kind(LIF)):
        if population.scale_group:
            groups.setdefault(population.scale_group, set()).add(population.name)
    assert set(groups) == {"stream", "downsamples.0.stream", "downsamples.1.stream"}
    assert groups["stream"] == {
        *(f"stream.{i}" for i in range(3)),
        "blocks.0.attention.x",
        "blocks.0.moe.x",
        "downsamples.0.x",  # reads the stream that ends here
    }
    assert "head.x" in groups["downsamples.1.stream"]
    found = [set(g.names) for g in scale_groups(graph)]
    for names in groups.values():
        assert names in found, "and no scale group is joined to another"


def test_downsampling_is_part_of_the_stem_in_energy_reports(graph):
    assert part_of("downsamples.0.x") == "stem"
    assert all(part_of(name) != "other" for name in graph.populations)
