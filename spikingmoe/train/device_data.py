"""A whole split on the training device: batches are gathered there, from their numbers alone."""

from __future__ import annotations

import torch
from torch import Tensor

from spikingmoe.config import TrainConfig
from spikingmoe.data.augment import augment
from spikingmoe.data.image_data import Normalisation, Split, model_input


class DeviceSplit:
    """Pixels as they are stored and labels, held where the model is.

    Args:
        normalisation: of the data set, also where its images are stored normalised; what is
            evaluated only, and stored so, needs none.
    """

    def __init__(self, split: Split, normalisation: Normalisation | None, num_classes: int) -> None:
        self.pixels, self.labels = split.stored, split.labels
        self.normalisation, self.num_classes = normalisation, num_classes

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device) -> None:
        """Move all samples to `device`."""
        self.pixels, self.labels = self.pixels.to(device), self.labels.to(device)

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """(images as the model takes them, labels) without augmentation."""
        pixels, labels = self._gathered(index)
        if pixels.dtype == torch.uint8:
            assert self.normalisation is not None  # `Split` sees to it
            pixels = self.normalisation.images(pixels)
        return model_input(pixels), labels

    def _gathered(self, index: Tensor) -> tuple[Tensor, Tensor]:
        there = index.to(self.labels.device, non_blocking=True)
        return self.pixels[there], self.labels[there]

    def training_batch(
        self, index: Tensor, settings: TrainConfig, epoch: int
    ) -> tuple[Tensor, Tensor]:
        """(augmented images as the model takes them, targets).

        Args:
            index: (B,) on the CPU, where random numbers are drawn without waiting for the device.
        """
        assert self.normalisation is not None
        images, targets = augment(
            *self._gathered(index),
            index,
            settings,
            self.normalisation,
            self.num_classes,
            epoch=epoch,
        )
        return model_input(images), targets
