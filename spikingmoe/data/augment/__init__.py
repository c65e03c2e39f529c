"""Augmentation of whole batches, from uint8, on the device of the data; see `batch.augment`."""

from spikingmoe.data.augment.batch import augment, check_augmentation
from spikingmoe.data.augment.by_generator import batch_generator, random_flip, random_shift

__all__ = ["augment", "batch_generator", "check_augmentation", "random_flip", "random_shift"]
