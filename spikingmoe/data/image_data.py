"""A data set in memory: normalised images, labels, a fixed split."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Split:
    """Images (n, C, height, width), float32, normalised, and labels (n,), int64."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, n: int) -> Split:
        """The first `n` samples; ValueError if there are fewer."""
        if not 1 <= n <= len(self):
            raise ValueError(f"samples={n}; this split has {len(self)}, use 1 to {len(self)}")
        return Split(self.images[:n], self.labels[:n])


@dataclass(frozen=True)
class ImageData:
    """Train, validation and test splits; pixel = normalised * std + mean, in 0..1."""

    name: str
    classes: tuple[str, ...]
    mean: float
    std: float
    train: Split
    validation: Split
    test: Split

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, height, width)."""
        return tuple(self.train.images.shape[1:])

    @property
    def background(self) -> float:
        """The normalised value of a black pixel."""
        return -self.mean / self.std

    @property
    def input_limit(self) -> float:
        """Largest magnitude in the training images: what a fixed-point input must represent."""
        return float(self.train.images.abs().max())


def stratified_split(labels: Tensor, shares: tuple[float, ...], seed: int) -> list[Tensor]:
    """Index sets that hold the given shares of every class, and the rest; shuffled, fixed by `seed`."""
    generator = torch.Generator().manual_seed(seed)
    parts: list[list[Tensor]] = [[] for _ in range(len(shares) + 1)]
    for label in labels.unique(sorted=True):
        index = (labels == label).nonzero().flatten()
        index = index[torch.randperm(len(index), generator=generator)]
        start = 0
        for part, share in zip(parts, shares, strict=False):
            count = round(share * len(index))
            part.append(index[start : start + count])
            start += count
        parts[-1].append(index[start:])
    joined = [torch.cat(part) for part in parts]
    return [index[torch.randperm(len(index), generator=generator)] for index in joined]
