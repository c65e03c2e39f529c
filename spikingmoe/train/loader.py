"""Batches whose order depends on (seed, epoch) alone, so that a resumed run sees the same ones."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from spikingmoe.data.augment import batch_generator
from spikingmoe.data.image_data import Split, model_input

SHUFFLE = 2**31 - 1  # a step that no batch has: keeps the shuffle's generator apart


class IndexBatch(NamedTuple):
    """Which samples a device takes at one step.

    Attributes:
        index: (B,) of this device, never empty.
        own: how many of them count: B, or 0 where the batch had no sample left for this device.
        total: samples of the step over all devices.
    """

    index: Tensor
    own: int
    total: int


class EpochBatches(Sampler):
    """Index batches, shuffled anew for each epoch (Lightning calls `set_epoch`).

    Args:
        batch_size: over all devices; device `rank` of `world` takes every world-th sample of a batch,
            so that the samples of a step do not depend on the number of devices.
    """

    def __init__(
        self, n: int, batch_size: int, seed: int, *, shuffle: bool, rank: int = 0, world: int = 1
    ) -> None:
        self.n, self.batch_size, self.seed, self.shuffle = n, batch_size, seed, shuffle
        self.rank, self.world = rank, world
        self.epoch = 0
        self.done = (-1, 0)  # (epoch, steps of it that are left out)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order `__iter__` gives."""
        self.epoch = epoch

    def resume_at(self, epoch: int, steps: int) -> None:
        """Go on in `epoch` behind its first `steps` batches; later epochs are whole."""
        self.epoch, self.done = epoch, (epoch, steps)

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return -(-self.n // self.batch_size)

    def __iter__(self) -> Iterator[IndexBatch]:
        order = torch.arange(self.n)
        if self.shuffle:
            generator = batch_generator(self.seed, self.epoch, SHUFFLE)
            order = torch.randperm(self.n, generator=generator)
        epoch, steps = self.done
        batches = order.split(self.batch_size)[steps if epoch == self.epoch else 0 :]
        return (self._share(batch) for batch in batches)

    def _share(self, batch: Tensor) -> IndexBatch:
        index = batch[self.rank :: self.world]
        return IndexBatch(index if len(index) else batch[:1], len(index), len(batch))


class _Indices(Dataset):
    def __getitem__(self, batch: IndexBatch) -> IndexBatch:
        return batch


class _Images(Dataset):
    def __init__(self, split: Split) -> None:
        self.split = split

    def __getitem__(self, batch: IndexBatch) -> tuple[Tensor, Tensor]:
        found = self.split.at(batch.index)
        return model_input(found.images), found.labels


def index_loader(sampler: EpochBatches, workers: int = 0) -> DataLoader:
    """The sampler's index batches; the samples themselves lie on the device."""
    # An own generator: otherwise each epoch draws from torch's, and a resumed run draws once more.
    return DataLoader(
        _Indices(),
        batch_size=None,
        sampler=sampler,
        num_workers=workers,
        generator=torch.Generator(),
    )


def make_loader(
    split: Split, batch_size: int, *, seed: int = 0, shuffle: bool = False
) -> DataLoader:
    """Batches (images, labels) of a split that is held in memory."""
    sampler = EpochBatches(len(split), batch_size, seed, shuffle=shuffle)
    return DataLoader(_Images(split), batch_size=None, sampler=sampler, generator=torch.Generator())
