"""A data set in memory: images, labels, a fixed split."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

SUBSET_SEED = 20260102
ROWS_AT_ONCE = 1000


@dataclass(frozen=True)
class Normalisation:
    """image = (pixel - mean) / std per channel, with pixels in 0..1.

    Attributes:
        mean, std: one number per channel (C,), or one for all of them.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.mean) != len(self.std) or not self.mean or min(self.std) <= 0:
            raise ValueError(
                f"normalisation: mean={self.mean} and std={self.std} need one entry per channel, "
                f"std above 0"
            )

    def images(self, pixels: Tensor) -> Tensor:
        """Pixels (..., C, height, width) in 0..255 as normalised float32 images."""
        mean, std = self._columns(pixels.device)
        return (pixels / 255.0).sub_(mean).div_(std)  # one new tensor, not four

    def pixels(self, images: Tensor) -> Tensor:
        """Normalised images (..., C, height, width) as pixels in 0..1."""
        mean, std = self._columns(images.device)
        return (images * std + mean).clamp(0, 1)

    @property
    def background(self) -> tuple[float, ...]:
        """The normalised value of a black pixel, per channel."""
        return tuple(-mean / std for mean, std in zip(self.mean, self.std, strict=True))

    def _columns(self, device: torch.device) -> tuple[Tensor, Tensor]:
        mean, std = (torch.tensor(v, device=device)[:, None, None] for v in (self.mean, self.std))
        return mean, std


@dataclass(frozen=True)
class Split:
    """Images, or event frames, and labels (n,), int64.

    Attributes:
        stored: images (n, C, height, width) or frames of events (n, T, C, height, width); normalised
            float32, or, to take a quarter of the memory, uint8 pixels (counts of events) that
            `normalisation` turns into images when they are used.
    """

    stored: Tensor
    labels: Tensor
    normalisation: Normalisation | None = None

    def __post_init__(self) -> None:
        kind = torch.uint8 if self.normalisation else torch.float32
        if self.stored.dtype != kind or len(self.stored) != len(self.labels):
            raise ValueError(
                f"split: {len(self.stored)} images of {self.stored.dtype} and {len(self.labels)} "
                f"labels; needs as many of each, {kind} "
                f"{'with' if self.normalisation else 'without'} a normalisation"
            )
        if self.stored.ndim not in (4, 5):
            raise ValueError(
                f"split: images have shape {tuple(self.stored.shape)}; needs (n, C, height, width), "
                f"or (n, T, C, height, width) for event frames"
            )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(C, height, width) of an image or a frame."""
        return tuple(self.stored.shape[-3:])

    @property
    def time_steps(self) -> int | None:
        """Frames T per sample; None for still images."""
        return self.stored.shape[1] if self.stored.ndim == 5 else None

    @property
    def images(self) -> Tensor:
        """All of them, float32, normalised: (n, C, height, width), or frames (n, T, C, height, width)."""
        return self.normalisation.images(self.stored) if self.normalisation else self.stored

    def at(self, index: Tensor | slice) -> Split:
        """The samples at an index or in a slice."""
        return Split(self.stored[index], self.labels[index], self.normalisation)

    def in_steps(self, time_steps: int) -> Split:
        """The same samples for a model with so many time steps.

        Still images, and frames of that number, stay. For one step, as a network without spikes takes them,
        the counts of all frames are added up (at most 255), and divided by sqrt(T) as much.

        Raises:
            ValueError: another number of frames, which only counting the events anew can give.
        """
        frames = self.time_steps
        if frames in (None, time_steps):
            return self
        if time_steps != 1 or self.normalisation is None:
            raise ValueError(
                f"split: samples of {frames} frames do not become {time_steps}; load the data with "
                f"time_steps={time_steps}"
            )
        sums = torch.cat(
            [
                part.sum(dim=1, keepdim=True).clamp(max=255).to(torch.uint8)
                for part in self.stored.split(ROWS_AT_ONCE)
            ]
        )
        std = tuple(math.sqrt(frames) * s for s in self.normalisation.std)
        return Split(sums, self.labels, Normalisation(self.normalisation.mean, std))

    def first(self, n: int) -> Split:
        """The first `n` samples; ValueError if there are fewer."""
        if not 1 <= n <= len(self):
            raise ValueError(f"samples={n}; this split has {len(self)}, use 1 to {len(self)}")
        return self.at(slice(n))

    def subset(self, n: int) -> Split:
        """`n` samples, evenly over the classes; a larger subset holds every smaller one.

        They are the first of a fixed shuffle that deals the classes out in turn, as long as a class
        has samples left.
        """
        if not 1 <= n <= len(self):
            raise ValueError(f"subset of {n}; this split has {len(self)}, use 1 to {len(self)}")
        return self.at(dealt_order(self.labels)[:n])


@dataclass(frozen=True)
class ImageData:
    """Train, validation and test splits; pixel = normalised * std + mean per channel, in 0..1."""

    name: str
    classes: tuple[str, ...]
    normalisation: Normalisation
    train: Split
    validation: Split
    test: Split

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, height, width) of an image or a frame."""
        return self.train.image_shape

    @property
    def time_steps(self) -> int | None:
        """Frames T per sample of event data; None for still images."""
        return self.train.time_steps

    @property
    def background(self) -> tuple[float, ...]:
        """The normalised value of a black pixel, per channel."""
        return self.normalisation.background

    def in_steps(self, time_steps: int) -> ImageData:
        """The same data for a model with so many time steps; see `Split.in_steps`."""
        if self.time_steps in (None, time_steps):
            return self
        train, validation, test = (
            split.in_steps(time_steps) for split in (self.train, self.validation, self.test)
        )
        assert train.normalisation is not None
        return replace(
            self,
            normalisation=train.normalisation,
            train=train,
            validation=validation,
            test=test,
        )

    @property
    def input_limit(self) -> float:
        """Largest magnitude in the training images: what a fixed-point input must represent."""
        stored = self.train.stored
        others = [axis for axis in range(stored.ndim) if axis != stored.ndim - 3]  # not C
        extremes = torch.stack([stored.amin(dim=others), stored.amax(dim=others)])
        two = Split(extremes[..., None, None], torch.zeros(2), self.train.normalisation)
        return float(two.images.abs().max())


def channel_statistics(pixels: Tensor) -> Normalisation:
    """Mean and standard deviation of each channel of uint8 pixels (n, C, height, width), in 0..1."""
    total = square = torch.zeros(pixels.shape[1], dtype=torch.float64)
    for chunk in pixels.split(ROWS_AT_ONCE):
        values = chunk.double() / 255.0
        total = total + values.sum(dim=(0, 2, 3))
        square = square + values.square().sum(dim=(0, 2, 3))
    count = pixels.numel() / pixels.shape[1]
    mean = total / count
    std = (square / count - mean.square()).clamp(min=0).sqrt()
    return Normalisation(tuple(mean.tolist()), tuple(std.tolist()))


def model_input(images: Tensor) -> Tensor:
    """A batch as the model takes it: images (B, C, height, width) as they are, frames with T first.

    Shapes: (B, T, C, height, width) -> (T, B, C, height, width).
    """
    return images.transpose(0, 1) if images.ndim == 5 else images


def dealt_order(labels: Tensor) -> Tensor:
    """(n,) an order of the samples in which every stretch is as even over the classes as can be."""
    generator = torch.Generator().manual_seed(SUBSET_SEED)
    order = torch.randperm(len(labels), generator=generator)
    turn = torch.empty_like(order)  # how many of its class come before a sample
    for label in labels.unique():
        mine = (labels[order] == label).nonzero().flatten()
        turn[mine] = torch.arange(len(mine))
    return order[turn.argsort(stable=True)]


def stratified_split(labels: Tensor, shares: tuple[float, ...], seed: int) -> list[Tensor]:
    """Index sets that hold the given shares of every class, and the rest; shuffled, fixed by `seed`."""
    generator = torch.Generator().manual_seed(seed)
    parts: list[list[Tensor]] = [[] for _ in range(len(shares) + 1)]
    for label in labels.unique(sorted=True):
        index = (labels == label).nonzero().flatten()
        index = index[torch.randperm(len(index), generator=generator)]
        start = 0
        for part, share in zip(parts, shares, strict=False):
            count = round(share * len(index))
            part.append(index[start : start + count])
            start += count
        parts[-1].append(index[start:])
    joined = [torch.cat(part) for part in parts]
    return [index[torch.randperm(len(index), generator=generator)] for index in joined]
