"""Shear, translation and rotation of a batch, by one affine sampling.

As Pillow's `Image.transform(size, AFFINE, (a, b, c, d, e, f), BILINEAR, fillcolor=fill)`: the pixel whose
centre is (x, y) is taken at (a x + b y + c, d x + e y + f), a blend of its four neighbours; `fill` where
that lies outside the image.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

NAMES = ("shear_x", "shear_y", "translate_x", "translate_y", "rotate")


def matrices(kind: Tensor, amount: Tensor, height: int, width: int) -> Tensor:
    """(k, 2, 3) matrices (a b c; d e f), from points of the result to points of the image.

    Args:
        kind: (k,) numbers in `NAMES`.
        amount: (k,) shears in pixels per pixel, about the upper left corner; translations as shares of
            the side, to the left and up; rotations in degrees, counter-clockwise about the centre.
    """
    zero = torch.zeros_like(amount)
    angle = torch.where(kind == NAMES.index("rotate"), -torch.deg2rad(amount), zero)
    a, b, d = angle.cos(), angle.sin(), -angle.sin()
    x, y = width / 2, height / 2
    c, f = x - a * x - b * y, y - d * x - a * y
    b = b + torch.where(kind == NAMES.index("shear_x"), amount, zero)
    d = d + torch.where(kind == NAMES.index("shear_y"), amount, zero)
    c = c + torch.where(kind == NAMES.index("translate_x"), amount * width, zero)
    f = f + torch.where(kind == NAMES.index("translate_y"), amount * height, zero)
    return torch.stack([a, b, c, d, a, f], dim=1).view(-1, 2, 3)


def transform(images: Tensor, matrix: Tensor, fill: Tensor) -> Tensor:
    """Images (k, C, height, width), float32, under `matrices` (k, 2, 3); `fill` (C,) comes in."""
    height, width = images.shape[-2:]
    y, x = torch.meshgrid(
        torch.arange(height, device=images.device) + 0.5,
        torch.arange(width, device=images.device) + 0.5,
        indexing="ij",
    )
    points = torch.stack([x, y, torch.ones_like(x)], dim=-1).view(1, -1, 3)
    at = (points @ matrix.transpose(1, 2)).view(-1, height, width, 2)
    side = torch.tensor([width, height], device=images.device)
    outside = ((at < 0) | (at >= side)).any(dim=-1)[:, None]
    sampled = F.grid_sample(
        images, 2 * at / side - 1, mode="bilinear", padding_mode="border", align_corners=False
    )
    return torch.where(outside, fill[:, None, None], sampled)
