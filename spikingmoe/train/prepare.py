"""From stored samples to what the model is trained on: augmented, normalised images and targets."""

from __future__ import annotations

import torch
from torch import Tensor

from spikingmoe.config import TrainConfig
from spikingmoe.data.augment import augment
from spikingmoe.data.image_data import Normalisation


def prepare_batch(
    pixels: Tensor,
    labels: Tensor,
    index: Tensor,
    settings: TrainConfig,
    normalisation: Normalisation | None,
    num_classes: int,
    *,
    epoch: int,
) -> tuple[Tensor, Tensor]:
    """(images, targets) of a training batch, random in (settings.seed, epoch, index) alone.

    Args:
        pixels: (B, ...) as they are stored: uint8, or normalised float32.
        index: (B,) numbers of the samples in the data set.
        normalisation: of the pixels; None where zero is black.

    Returns:
        float32 images of the same shape; classes (B,) or probabilities (B, classes).
    """
    known = normalisation or Normalisation((0.0,), (1.0,))
    return augment(pixels, labels, index, settings, known, num_classes, epoch=epoch)


def normalised(pixels: Tensor, normalisation: Normalisation | None) -> Tensor:
    """float32 images of uint8 pixels, on their device; images that are float32 already stay."""
    if pixels.dtype != torch.uint8:
        return pixels
    images = pixels.float() / 255.0
    if normalisation is None:
        return images
    mean, std = (
        torch.tensor(values, device=pixels.device)[:, None, None]
        for values in (normalisation.mean, normalisation.std)
    )
    return (images - mean) / std
