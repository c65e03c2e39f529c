"""RandAugment: a few operations per image, drawn from a list, all of the same strength.

Source: Cubuk, Zoph, Shlens and Le, "RandAugment: Practical automated data augmentation with a reduced
search space" (2020), in the form that the recipes of the field use, `rand-m9-n1-mstd0.4-inc1` of the package
timm: 15 operations, drawn with replacement, each applied with probability 1/2; the magnitude is normal with
the given mean and spread, kept in 0..10; every operation grows with it. We sample with bilinear
interpolation (timm draws bilinear or bicubic) and fill with the data's mean colour, as timm does.
"""

from __future__ import annotations

import torch
from torch import Tensor

from spikingmoe.data.augment.colour import OPERATIONS
from spikingmoe.data.augment.geometry import NAMES, matrices, transform
from spikingmoe.data.augment.random_numbers import Draws

ALL = (*OPERATIONS, *NAMES)
DRAWS = 4  # per operation: which, whether, how strong, which sign
MOST = 10.0  # magnitude


def rand_augment(
    images: Tensor,
    draws: Draws,
    first: int,
    *,
    operations: int,
    magnitude: float,
    spread: float,
    fill: Tensor,
) -> Tensor:
    """Apply so many operations to each image.

    Args:
        images: (B, C, height, width), float32 in 0..255, C = 1 or 3.
        draws: of the batch; those from `first` on are used, four per operation.
        fill: (C,) float32, what comes in from outside.

    Returns:
        Whole numbers in 0..255, float32, of the same shape.
    """
    for number in range(operations):
        start = first + DRAWS * number
        which = draws.integer(start, len(ALL))
        applied = draws.coin(start + 1)
        level = ((magnitude + spread * draws.normal(start + 2)).clamp(0, MOST)) / MOST
        sign = torch.where(draws.coin(start + 3), 1.0, -1.0)
        images = apply(images, which, applied, level, sign, fill)
    return images


def apply(
    images: Tensor, which: Tensor, applied: Tensor, level: Tensor, sign: Tensor, fill: Tensor
) -> Tensor:
    """One operation per image, those of a kind together.

    Args:
        which: (B,) numbers in `ALL`.
        applied: (B,) booleans; the others stay as they are.
        level: (B,) strength in 0..1; sign: (B,) 1 or -1, where an operation has two directions.
    """
    result = images.clone()
    chosen = torch.where(applied, which, -1).tolist()
    groups: dict[str, list[int]] = {}
    for image, number in enumerate(chosen):
        if number >= 0:
            name = ALL[number]
            groups.setdefault("geometry" if name in NAMES else name, []).append(image)
    for name, members in groups.items():
        index = torch.tensor(members, device=which.device)
        here = index.to(images.device)
        if name == "geometry":
            kind = which[index] - len(OPERATIONS)
            matrix = matrices(kind, geometric(kind, level[index], sign[index]), *images.shape[-2:])
            changed = transform(images[here], matrix.to(images.device), fill)
            changed = (changed + 0.5).floor()
        else:
            amount = strength(name, level[index], sign[index]).to(images.device)
            changed = OPERATIONS[name](images[here], amount)
        result[here] = changed
    return result


def geometric(kind: Tensor, level: Tensor, sign: Tensor) -> Tensor:
    """(k,) shears up to 0.3, translations up to 0.45 of the side, rotations up to 30 degrees."""
    most = level.new_tensor([0.3, 0.3, 0.45, 0.45, 30.0])
    return most[kind] * level * sign


def strength(name: str, level: Tensor, sign: Tensor) -> Tensor:
    """(k,) argument of an operation on values; 0 is the weakest level, 1 the strongest."""
    if name == "posterize":
        return 4 - (4 * level).floor()
    if name == "solarize":
        return 256 - (256 * level).floor()
    if name == "solarize_add":
        return (110 * level).floor()
    return (1 + 0.9 * level * sign).clamp(min=0.1)  # of those that blend; the others ignore it
