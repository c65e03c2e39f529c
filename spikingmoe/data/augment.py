"""Augmentation of whole batches, deterministic per (seed, epoch, step)."""

from __future__ import annotations

import torch
from torch import Tensor


def batch_generator(seed: int, epoch: int, step: int) -> torch.Generator:
    """A generator that depends on nothing but the three numbers, so that a resumed run repeats it."""
    mixed = (seed * 1_000_003 + epoch) * 1_000_003 + step
    return torch.Generator().manual_seed(mixed % 2**63)


def random_shift(images: Tensor, max_shift: int, fill: float, generator: torch.Generator) -> Tensor:
    """Translate each image by up to `max_shift` pixels in both directions, filling with `fill`.

    Shapes: (B, C, height, width) -> the same.
    """
    if max_shift == 0:
        return images
    batch, _, height, width = images.shape
    padded = torch.nn.functional.pad(images, (max_shift,) * 4, value=fill)
    offset = torch.randint(0, 2 * max_shift + 1, (2, batch, 1), generator=generator)
    rows = offset[0] + torch.arange(height)
    columns = offset[1] + torch.arange(width)
    index = torch.arange(batch)[:, None, None]
    return padded.movedim(1, -1)[index, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)
