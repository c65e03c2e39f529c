"""Operations on the values of a batch, as Pillow does them, image by image.

All take and return float32 images (k, C, height, width) that hold whole numbers in 0..255, with C = 1
(grey) or 3 (red, green, blue), and a strength (k,). Results are within one step of Pillow's, whose
arithmetic rounds at other places.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

WHITE = 255.0
Operation = Callable[[Tensor, Tensor], Tensor]


def auto_contrast(images: Tensor, _strength: Tensor) -> Tensor:
    """Each channel stretched to 0..255; one of a single value stays (`ImageOps.autocontrast`)."""
    low, high = images.amin(dim=(2, 3), keepdim=True), images.amax(dim=(2, 3), keepdim=True)
    stretched = ((images - low) * (WHITE / (high - low).clamp(min=1)) + 1e-3).floor()
    return torch.where(high > low, stretched, images)


def equalize(images: Tensor, _strength: Tensor) -> Tensor:
    """Each channel's histogram made as flat as a table allows (`ImageOps.equalize`).

    step = (pixels - those of the highest value) // 255; a value with n pixels below it becomes
    (step // 2 + n) // step; a channel with step 0 stays.
    """
    values = images.long().flatten(2)
    rows = values.shape[0] * values.shape[1]
    own = torch.arange(rows, device=images.device).view(*values.shape[:2], 1) * 256
    counts = torch.bincount((values + own).flatten(), minlength=256 * rows).view(-1, 256)
    highest = values.amax(dim=2).view(-1, 1)
    step = (values.shape[2] - counts.gather(1, highest)) // 255
    below = counts.cumsum(dim=1) - counts
    table = ((step // 2 + below) // step.clamp(min=1)).clamp(max=255)
    table = torch.where(step > 0, table, torch.arange(256, device=images.device))
    return table.flatten()[values + own].view(images.shape).float()


def invert(images: Tensor, _strength: Tensor) -> Tensor:
    """255 - value."""
    return WHITE - images


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """The highest `bits` of each value, the others 0."""
    unit = 2.0 ** (8 - _column(bits))
    return (images / unit).floor() * unit


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Values from the threshold on are inverted."""
    return torch.where(images < _column(threshold), images, WHITE - images)


def solarize_add(images: Tensor, amount: Tensor) -> Tensor:
    """Values below 128 are raised, at most to 255."""
    return torch.where(images < 128, (images + _column(amount)).clamp(max=WHITE), images)


def color(images: Tensor, factor: Tensor) -> Tensor:
    """Away from (above 1) or towards (below 1) the grey picture; grey images stay."""
    return images if images.shape[1] == 1 else _blend(grey(images), images, factor)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Away from or towards the mean of the grey picture."""
    mean = (grey(images).mean(dim=(1, 2, 3), keepdim=True) + 0.5).floor()
    return _blend(mean, images, factor)


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Away from or towards black."""
    return _blend(torch.zeros_like(images), images, factor)


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Away from or towards the smoothed picture (neighbours 1, centre 5, of 13); the rim stays."""
    kernel = torch.ones(3, 3, device=images.device)
    kernel[1, 1] = 5
    channels = images.shape[1]
    smooth = images.clone()
    smooth[..., 1:-1, 1:-1] = (
        F.conv2d(images, (kernel / 13).expand(channels, 1, 3, 3), groups=channels) + 0.5
    ).floor()
    return _blend(smooth, images, factor)


def grey(images: Tensor) -> Tensor:
    """(k, 1, height, width) luminance of ITU-R 601-2, as Pillow's conversion to "L"."""
    if images.shape[1] == 1:
        return images
    weights = images.new_tensor([19595, 38470, 7471])[:, None, None] / 65536
    return ((images * weights).sum(dim=1, keepdim=True) + 0.5).floor()


OPERATIONS: dict[str, Operation] = {
    f.__name__: f
    for f in (
        auto_contrast,
        equalize,
        invert,
        posterize,
        solarize,
        solarize_add,
        color,
        contrast,
        brightness,
        sharpness,
    )
}


def _blend(start: Tensor, end: Tensor, factor: Tensor) -> Tensor:
    return (start + _column(factor) * (end - start)).clamp(0, WHITE).floor()


def _column(values: Tensor) -> Tensor:
    return values[:, None, None, None]
