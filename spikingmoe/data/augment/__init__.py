"""Augmentation of whole batches, from uint8, on the device of the data; see `batch.augment`."""

from spikingmoe.data.augment.batch import augment, check_augmentation
from spikingmoe.data.augment.random_numbers import batch_generator

__all__ = ["augment", "batch_generator", "check_augmentation"]
