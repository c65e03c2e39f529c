"""The order of the samples."""

import pytest
import torch

from spikingmoe.train.loader import EpochBatches, index_loader


def batches(sampler, workers=0):
    return [(b.index.tolist(), b.own, b.total) for b in index_loader(sampler, workers)]


def test_each_epoch_has_every_sample_once_in_another_order():
    sampler = EpochBatches(10, 4, seed=3, shuffle=True)
    seen = []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        found = batches(sampler)
        assert [total for _, _, total in found] == [4, 4, 2]
        seen.append([i for index, _, _ in found for i in index])
        assert sorted(seen[-1]) == list(range(10))
    assert seen[0] != seen[1]
    assert len(sampler) == 3


def test_workers_change_nothing():
    one, two = (EpochBatches(23, 4, seed=1, shuffle=True) for _ in range(2))
    assert batches(one, 0) == batches(two, 2)


@pytest.mark.parametrize("workers", [0, 2])
def test_it_goes_on_behind_the_steps_that_are_done(workers):
    whole, rest = (EpochBatches(20, 4, seed=5, shuffle=True) for _ in range(2))
    whole.set_epoch(2)
    rest.resume_at(2, 3)
    assert len(rest) == 5, "Lightning counts whole epochs"
    assert batches(rest, workers) == batches(whole)[3:]
    for sampler in (whole, rest):
        sampler.set_epoch(3)
    assert batches(rest, workers) == batches(whole), "the next epoch is whole"


def test_drawing_the_order_leaves_the_generators_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    batches(EpochBatches(20, 4, seed=5, shuffle=True))
    batches(EpochBatches(20, 4, seed=5, shuffle=True), 2)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(("n", "world"), [(12, 2), (13, 2), (9, 4), (8, 3)])
def test_devices_share_each_batch(n, world):
    whole = batches(EpochBatches(n, 4, seed=0, shuffle=True))
    shares = [
        batches(EpochBatches(n, 4, 0, shuffle=True, rank=r, world=world)) for r in range(world)
    ]
    for step, (index, _, total) in enumerate(whole):
        own = [i for share in shares for i in share[step][0][: share[step][1]]]
        assert sorted(own) == sorted(index)
        assert {share[step][2] for share in shares} == {total}
        sizes = [share[step][1] for share in shares]
        assert max(sizes) - min(sizes) <= 1
        assert all(share[step][0] for share in shares), "never empty: norms need a sample"
