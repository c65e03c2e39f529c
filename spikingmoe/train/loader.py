"""Batches whose order depends on (seed, epoch) alone, so that a resumed run sees the same ones."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from spikingmoe.data.augment import batch_generator
from spikingmoe.data.image_data import Split, model_input

SHUFFLE = 2**31 - 1  # a step that no batch has: keeps the shuffle's generator apart


class _Batches(Dataset):
    def __init__(self, split: Split) -> None:
        self.split = split

    def __getitem__(self, index: Tensor) -> tuple[Tensor, Tensor]:
        batch = self.split.at(index)
        return model_input(batch.images), batch.labels


class EpochBatches(Sampler):
    """Index batches, shuffled anew for each epoch (Lightning calls `set_epoch`)."""

    def __init__(self, n: int, batch_size: int, seed: int, *, shuffle: bool) -> None:
        self.n, self.batch_size, self.seed, self.shuffle = n, batch_size, seed, shuffle
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order `__iter__` gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.n // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        order = torch.arange(self.n)
        if self.shuffle:
            generator = batch_generator(self.seed, self.epoch, SHUFFLE)
            order = torch.randperm(self.n, generator=generator)
        return iter(order.split(self.batch_size))


def make_loader(
    split: Split, batch_size: int, *, seed: int = 0, shuffle: bool = False
) -> DataLoader:
    """Batches (images, labels) of a split that is held in memory."""
    sampler = EpochBatches(len(split), batch_size, seed, shuffle=shuffle)
    return DataLoader(_Batches(split), batch_size=None, sampler=sampler)
