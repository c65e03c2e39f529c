"""Shift and flip of a batch by a stateful generator: what training calls until it calls `augment`."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def batch_generator(seed: int, epoch: int, step: int) -> torch.Generator:
    """A generator that depends on nothing but the three numbers, so that a resumed run repeats it."""
    mixed = (seed * 1_000_003 + epoch) * 1_000_003 + step
    return torch.Generator().manual_seed(mixed % 2**63)


def random_shift(
    images: Tensor, max_shift: int, fill: Sequence[float], generator: torch.Generator
) -> Tensor:
    """Translate each image by up to `max_shift` pixels in both directions.

    Args:
        fill: what comes in at the border, one value per channel or one for all.

    Shapes: (B, C, height, width) -> the same.
    """
    if max_shift == 0:
        return images
    batch, channels, height, width = images.shape
    border = torch.as_tensor(fill, dtype=images.dtype)[:, None, None]
    padded = border.expand(batch, channels, height + 2 * max_shift, width + 2 * max_shift).clone()
    padded[..., max_shift : max_shift + height, max_shift : max_shift + width] = images
    offset = torch.randint(0, 2 * max_shift + 1, (2, batch, 1), generator=generator)
    rows = offset[0] + torch.arange(height)
    columns = offset[1] + torch.arange(width)
    index = torch.arange(batch)[:, None, None]
    return padded.movedim(1, -1)[index, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)


def random_flip(images: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image left to right with probability 1/2. (B, C, height, width) -> the same."""
    mirror = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(mirror[:, None, None, None], images.flip(-1), images)
