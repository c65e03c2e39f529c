"""Mixup and CutMix: an image and its label take a share from another image of the batch.

Sources: Zhang, Cisse, Dauphin and Lopez-Paz, "mixup: Beyond empirical risk minimization" (2018); Yun et al.,
"CutMix" (2019). The share is drawn per image (both papers draw one per batch), the partner is the sample before
in the batch, the first takes the last. With both, each image takes one of them, with probability 1/2.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from spikingmoe.data.augment.erase import box
from spikingmoe.data.augment.random_numbers import Draws

DRAWS = 4  # share, row, column, which of the two


def mix_batch(
    images: Tensor,
    labels: Tensor,
    draws: Draws,
    first: int,
    *,
    mixup: float,
    cutmix: float,
    num_classes: int,
) -> tuple[Tensor, Tensor]:
    """(images (B, C, height, width), probabilities (B, classes)) of a batch that is mixed.

    Args:
        images: normalised, float32.
        mixup, cutmix: alpha of the Beta distribution of the share that an image keeps; 0: not used.
    """
    height, width = images.shape[-2:]
    if cutmix:
        own_BHW = cut_shares(draws, first, cutmix, height, width)
        if mixup:
            flat = draws.beta(first, mixup)[:, None, None]
            own_BHW = torch.where(draws.coin(first + 3)[:, None, None], flat, own_BHW)
    else:
        own_BHW = draws.beta(first, mixup)[:, None, None]
    own = own_BHW.to(images.device)[:, None]
    mixed = torch.lerp(images.roll(1, 0), images, own.expand(-1, 1, height, width))
    share = own.mean(dim=(1, 2, 3))[:, None]
    one_hot = F.one_hot(labels, num_classes).float()
    return mixed, torch.lerp(one_hot.roll(1, 0), one_hot, share)


def cut_shares(draws: Draws, first: int, alpha: float, height: int, width: int) -> Tensor:
    """(B, height, width): 0 in a rectangle that another image takes, 1 elsewhere.

    Its sides are sqrt(1 - share) of the image's, its centre is uniform; what lies outside is cut off.
    """
    side = (1 - draws.beta(first, alpha)).sqrt()
    tall, long = (side * height).long(), (side * width).long()
    middle_row, middle_column = draws.integer(first + 1, height), draws.integer(first + 2, width)
    top, left = middle_row - tall // 2, middle_column - long // 2
    return 1.0 - box(top, left, tall, long, height, width).float()
