"""Random erasing: a rectangle of an image becomes noise.

Source: Zhong, Zheng, Kang, Li and Yang, "Random erasing data augmentation" (2020), with timm's numbers: 2 % to a
third of the area, of an aspect between 0.3 and 1 / 0.3, filled with normal noise in place of uniform. A
rectangle that is too long for the image is cut to its side; the paper draws another.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spikingmoe.data.augment.random_numbers import Draws, normal_noise

DRAWS = 5  # whether, area, aspect, row, column
AREA = (0.02, 1 / 3)
LOG_ASPECT = math.log(1 / 0.3)


def random_erasing(images: Tensor, draws: Draws, first: int, probability: float) -> Tensor:
    """Erase a rectangle in some of the normalised images (B, C, height, width)."""
    erased = draws.coin(first, probability).nonzero().flatten()
    if not len(erased):
        return images
    height, width = images.shape[-2:]
    uniform = [draws.uniform(first + 1 + i)[erased] for i in range(4)]
    area = (AREA[0] + (AREA[1] - AREA[0]) * uniform[0]) * height * width
    aspect = torch.exp((2 * uniform[1] - 1) * LOG_ASPECT)
    tall = (area * aspect).sqrt().round().long().clamp(1, height)
    long = (area / aspect).sqrt().round().long().clamp(1, width)
    top = (uniform[2] * (height - tall + 1)).long().minimum(height - tall)
    left = (uniform[3] * (width - long + 1)).long().minimum(width - long)
    inside = box(top, left, tall, long, height, width).to(images.device)
    noise = normal_noise(draws.key[erased], images[0].numel()).to(images.device)
    here = erased.to(images.device)
    images = images.clone()
    images[here] = torch.where(inside[:, None], noise.view(-1, *images.shape[1:]), images[here])
    return images


def box(top: Tensor, left: Tensor, tall: Tensor, long: Tensor, height: int, width: int) -> Tensor:
    """(k, height, width) booleans: inside a rectangle per image."""
    row = torch.arange(height, device=top.device)
    column = torch.arange(width, device=top.device)
    rows = (row >= top[:, None]) & (row < (top + tall)[:, None])
    columns = (column >= left[:, None]) & (column < (left + long)[:, None])
    return rows[:, :, None] & columns[:, None, :]
