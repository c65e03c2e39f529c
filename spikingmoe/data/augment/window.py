"""Shift and flip: each image becomes a window of its padded self, perhaps mirrored."""

from __future__ import annotations

import torch
from torch import Tensor


def shift_and_flip(
    pixels: Tensor, rows: Tensor, columns: Tensor, mirrored: Tensor, max_shift: int, border: Tensor
) -> Tensor:
    """Cut a window out of each image, which is padded by `max_shift` on all sides; mirror some.

    One gather, whatever the type of the pixels.

    Args:
        rows, columns: (B,) int64, where the window starts in the padded image, in 0..2 max_shift;
            max_shift is the middle, the image itself.
        mirrored: (B,) booleans: left and right of the window are exchanged.
        border: (C,) what the padding holds, of the pixels' type.

    Shapes: (B, C, height, width) -> the same.
    """
    batch, channels, height, width = pixels.shape
    if max_shift:
        wide = width + 2 * max_shift
        padded = border[:, None, None].repeat(batch, 1, height + 2 * max_shift, wide)
        padded[..., max_shift : max_shift + height, max_shift : max_shift + width] = pixels
    else:
        wide, padded = width, pixels
    across = torch.arange(width, device=pixels.device)
    column = torch.where(mirrored[:, None], width - 1 - across, across) + columns[:, None]
    row = (torch.arange(height, device=pixels.device) + rows[:, None]) * wide
    index = (row[:, :, None] + column[:, None, :]).reshape(batch, 1, height * width)
    taken = padded.reshape(batch, channels, -1).gather(2, index.expand(-1, channels, -1))
    return taken.reshape(pixels.shape)
