"""All augmentation of a batch, in its order: shift and flip, RandAugment, normalise, erase, mix."""

from __future__ import annotations

import torch
from torch import Tensor

from spikingmoe.config import TrainConfig
from spikingmoe.data.augment import erase, mix, rand_augment
from spikingmoe.data.augment.random_numbers import Draws
from spikingmoe.data.augment.window import shift_and_flip
from spikingmoe.data.image_data import Normalisation

# Numbers of the draws of a sample; those of RandAugment come last, since their count is free.
ROW, COLUMN, MIRRORED, ERASE = 0, 1, 2, 3
MIX = ERASE + erase.DRAWS
RAND_AUGMENT = MIX + mix.DRAWS

#: Settings that act on the colours of pixels, or blend them: of images, not of event counts.
IMAGES_ONLY = ("rand_augment_ops", "random_erasing", "mixup", "cutmix")


def augment(
    pixels: Tensor,
    labels: Tensor,
    index: Tensor,
    settings: TrainConfig,
    normalisation: Normalisation,
    num_classes: int,
    *,
    epoch: int,
) -> tuple[Tensor, Tensor]:
    """Augment a batch as the settings say; the same for the same seed, epoch and sample.

    What a sample becomes depends on (settings.seed, epoch, its index) alone; mixup and cutmix also on
    its partner, the sample before it in the batch.

    Args:
        pixels: as stored: uint8, or float32 already normalised; images (B, C, height, width) or event
            frames (B, T, C, height, width). All frames of a sample are moved alike.
        labels: (B,) int64.
        index: (B,) int64, of the samples in the data set. Best on the CPU: numbers are drawn where it
            lies, and RandAugment waits for them.
        normalisation: of the data set.
        num_classes: of the data set, for the probabilities of mixed labels.
        epoch: from 0 on.

    Returns:
        images: normalised float32, in the layout of `pixels`.
        targets: the labels; or, in epochs in which images are mixed, probabilities (B, classes), float32.

    Raises:
        ValueError: settings that act on colours, for event frames or channels that are no colours.
    """
    shape = pixels.shape
    check_augmentation(settings, channels=shape[-3], is_events=pixels.ndim == 5)
    images = pixels.flatten(1, -3)  # (B, C or T C, height, width)
    draws = Draws(
        settings.seed,
        epoch,
        index,
        RAND_AUGMENT + rand_augment.DRAWS * settings.rand_augment_ops,
    )
    images = _moved(images, draws, settings, normalisation)
    if settings.rand_augment_ops:
        stored = images.float() if pixels.dtype == torch.uint8 else _in_steps(images, normalisation)
        mean = torch.tensor(normalisation.mean, device=pixels.device).expand(shape[-3])
        changed = rand_augment.rand_augment(
            stored,
            draws,
            RAND_AUGMENT,
            operations=settings.rand_augment_ops,
            magnitude=settings.rand_augment_magnitude,
            spread=settings.rand_augment_std,
            fill=255.0 * mean,
        )
        images = normalisation.images(changed)
    elif pixels.dtype == torch.uint8:
        images = normalisation.images(images.view(shape))
    if settings.random_erasing:
        images = erase.random_erasing(images, draws, ERASE, settings.random_erasing)
    if is_mixed(settings, epoch):
        images, targets = mix.mix_batch(
            images,
            labels,
            draws,
            MIX,
            mixup=settings.mixup,
            cutmix=settings.cutmix,
            num_classes=num_classes,
        )
        return images, targets
    return images.view(shape), labels


def is_mixed(settings: TrainConfig, epoch: int) -> bool:
    """Whether the images of an epoch are mixed."""
    asked = bool(settings.mixup or settings.cutmix)
    return asked and (settings.mix_epochs == 0 or epoch < settings.mix_epochs)


def check_augmentation(settings: TrainConfig, *, channels: int, is_events: bool) -> None:
    """ValueError for settings that mean nothing on such data; call it before training begins.

    Args:
        channels: of an image or a frame.
        is_events: frames of event counts, in place of images.
    """
    asked = [name for name in IMAGES_ONLY if getattr(settings, name)]
    if is_events and asked:
        raise ValueError(
            f"training: {asked[0]}={getattr(settings, asked[0])} acts on the colours of images, and "
            f"event frames hold counts; use 0 (max_shift and flip work on events)"
        )
    if settings.rand_augment_ops and channels not in (1, 3):
        raise ValueError(
            f"training: rand_augment_ops={settings.rand_augment_ops} needs grey or colour images "
            f"(1 or 3 channels), got {channels}; use 0"
        )


def _moved(
    images: Tensor, draws: Draws, settings: TrainConfig, normalisation: Normalisation
) -> Tensor:
    """Shifted by up to max_shift with black coming in, and half of them mirrored if `flip`."""
    most = settings.max_shift
    if not most and not settings.flip:
        return images
    mirrored = draws.coin(MIRRORED) if settings.flip else torch.zeros_like(draws.bits[0]).bool()
    channels = images.shape[1]
    if images.dtype == torch.uint8:
        border = torch.zeros(channels, dtype=torch.uint8, device=images.device)
    else:
        black = torch.zeros(len(normalisation.mean), 1, 1, device=images.device)
        border = normalisation.images(black).flatten()
        border = border.repeat(channels // len(border))
    return shift_and_flip(
        images,
        draws.integer(ROW, 2 * most + 1).to(images.device),
        draws.integer(COLUMN, 2 * most + 1).to(images.device),
        mirrored.to(images.device),
        most,
        border,
    )


def _in_steps(images: Tensor, normalisation: Normalisation) -> Tensor:
    """Normalised images as whole numbers in 0..255."""
    return (255.0 * normalisation.pixels(images)).round()
