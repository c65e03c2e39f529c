"""Muon: its orthogonal steps, and that what it does not move is moved by AdamW."""

import copy

import pytest
import torch
from tiny_models import tiny_config, tiny_images

from spikingmoe.config import TrainConfig
from spikingmoe.model import SpikingTransformer
from spikingmoe.train.muon import ADAMW_RMS, Muon, orthogonalise
from spikingmoe.train.optim import make_optimizer


@pytest.mark.parametrize("shape", [(6, 20), (20, 6), (3, 8, 12)])
def test_a_matrix_becomes_nearly_its_orthogonal_factor(shape):
    """Of U S V^T about U V^T remains: the same directions, singular values near 1."""
    torch.manual_seed(0)
    matrices = 100 * torch.randn(shape, dtype=torch.float64)
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    got = orthogonalise(matrices)
    values = u.mT @ got @ vh.mT
    along = torch.diagonal(values, dim1=-2, dim2=-1)
    assert ((along > 0.6) & (along < 1.25)).all()
    torch.testing.assert_close(values, torch.diag_embed(along), atol=1e-9, rtol=0)


def test_a_batch_of_matrices_is_each_on_its_own():
    experts = torch.randn(3, 8, 12, dtype=torch.float64)
    together = orthogonalise(experts)
    for one, expert in zip(together, experts, strict=True):
        torch.testing.assert_close(one, orthogonalise(expert))


def test_the_first_step_by_hand():
    """Momentum begins empty: the first direction is the gradient times 1 + momentum."""
    weight = torch.nn.Parameter(torch.randn(4, 3, 3, 3, dtype=torch.float64))
    before, gradient = weight.detach().clone(), torch.randn_like(weight)
    optimizer = Muon([{"params": [weight], "orthogonal": True}], lr=0.01, weight_decay=0.5)
    weight.grad = gradient
    optimizer.step()
    step = orthogonalise(gradient.flatten(1)).view_as(weight)
    expected = before * (1 - 0.01 * 0.5) - 0.01 * ADAMW_RMS * 27**0.5 * step
    torch.testing.assert_close(weight.data, expected)
    # a step is about as long as AdamW's, whose elements are about the learning rate
    assert 0.05 < (step * ADAMW_RMS * 27**0.5).square().mean().sqrt() < 0.4


def test_groups_that_are_not_orthogonal_move_as_under_adamw():
    torch.manual_seed(0)
    ours = torch.nn.Linear(3, 2)
    theirs = copy.deepcopy(ours)
    matrix = torch.nn.Parameter(torch.randn(4, 4))
    groups = [{"params": list(ours.parameters())}, {"params": [matrix], "orthogonal": True}]
    mine = Muon(groups, lr=0.1, weight_decay=0.1)
    adamw = torch.optim.AdamW(theirs.parameters(), lr=0.1, weight_decay=0.1)
    for step in range(3):
        for model in (ours, theirs):
            model.zero_grad()
            model(torch.full((1, 3), step + 1.0)).square().sum().backward()
        matrix.grad = torch.randn(4, 4)
        mine.step(), adamw.step()
    assert torch.equal(ours.weight, theirs.weight)
    assert torch.equal(ours.bias, theirs.bias)


def test_it_moves_the_matrices_inside_the_network():
    """Depthwise kernels, the first and the last layer, routers and the prompt are AdamW's."""
    config = tiny_config(local_mixing="dwconv", stem_channels=(4,), stem_strides=(1, 2))
    model = SpikingTransformer(config)
    names = {id(p): name for name, p in model.named_parameters()}
    optimizer = make_optimizer(model, TrainConfig(optimizer="muon"))
    moved = {names[id(p)] for g in optimizer.param_groups if g["orthogonal"] for p in g["params"]}
    assert {n for n in moved if not n.startswith("blocks.")} == {"stem.convs.1.conv.weight"}
    assert {n.split(".", 2)[2] for n in moved if n.startswith("blocks.0.")} == {
        *(f"attention.{n}.linear.weight" for n in ("query", "key", "project")),
        *("mixing.project.linear.weight", "moe.experts.weight1", "moe.experts.weight2"),
    }
    grouped = [p for g in optimizer.param_groups for p in g["params"]]
    assert len(grouped) == len(set(map(id, grouped))) == len(names)


def test_it_goes_on_from_its_state():
    """A copy that starts from the saved state takes the same steps."""
    torch.manual_seed(0)
    model = SpikingTransformer(tiny_config())
    config, images = TrainConfig(optimizer="muon"), tiny_images(model.config, 4)
    optimizer = make_optimizer(model, config)

    def steps(model, optimizer):
        for _ in range(2):
            optimizer.zero_grad()
            model(images).logits.square().sum().backward()
            optimizer.step()

    steps(model, optimizer)
    other = copy.deepcopy(model)
    resumed = make_optimizer(other, config)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(model, optimizer), steps(other, resumed)
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)


def test_an_expert_that_no_token_chose_stays_as_it_is():
    """A normalised step would go on at full length while the momentum fades."""
    torch.manual_seed(0)
    experts = torch.nn.Parameter(torch.randn(3, 4, 5))
    optimizer = Muon([{"params": [experts], "orthogonal": True}], lr=0.1, weight_decay=0.1)
    for chosen in ([0, 1, 2], [0, 2], [0, 2]):
        before = experts.detach().clone()
        experts.grad = torch.zeros_like(experts)
        experts.grad[chosen] = torch.randn(len(chosen), 4, 5)
        optimizer.step()
        moved = [bool((experts[e] != before[e]).any()) for e in range(3)]
        assert moved == [e in chosen for e in range(3)]
