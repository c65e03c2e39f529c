"""CIFAR-10 and CIFAR-100: 60,000 colour photographs of 32x32 pixels.

Source: Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009). The layout is that
of the published "python version": one pickle per batch, rows of 3,072 bytes (red, green, blue).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spikingmoe.data.digests import check_digests
from spikingmoe.data.image_data import ImageData, Split, channel_statistics, stratified_split
from spikingmoe.data.published import CIFAR10_FILES, CIFAR100_FILES, how_to_get
from spikingmoe.data.restricted_pickle import read_pickle

SPLIT_SEED = 20260101
VALIDATION_SHARE = 0.1  # 5,000 of the 50,000 training images
SHAPE = (3, 32, 32)


@dataclass(frozen=True)
class Layout:
    """Names of the published files and of what is in them."""

    name: str
    folder: str
    archive: str
    train: tuple[str, ...]
    test: str
    meta: str
    labels: bytes
    class_names: bytes
    num_classes: int


CIFAR10 = Layout(
    name="cifar10",
    folder="cifar-10-batches-py",
    archive="cifar-10-python.tar.gz",
    train=CIFAR10_FILES[:5],
    test=CIFAR10_FILES[5],
    meta=CIFAR10_FILES[6],
    labels=b"labels",
    class_names=b"label_names",
    num_classes=10,
)
CIFAR100 = Layout(
    name="cifar100",
    folder="cifar-100-python",
    archive="cifar-100-python.tar.gz",
    train=CIFAR100_FILES[:1],
    test=CIFAR100_FILES[1],
    meta=CIFAR100_FILES[2],
    labels=b"fine_labels",
    class_names=b"fine_label_names",
    num_classes=100,
)


def load_cifar10(data_dir: Path) -> ImageData:
    """CIFAR-10; see `load_cifar`."""
    return load_cifar(CIFAR10, data_dir)


def load_cifar100(data_dir: Path) -> ImageData:
    """CIFAR-100 with its fine labels; see `load_cifar`."""
    return load_cifar(CIFAR100, data_dir)


def load_cifar(layout: Layout, data_dir: Path) -> ImageData:
    """The published test set, and a tenth of every class of the training set for validation.

    Images are normalised per channel by the mean and deviation of the training split.

    Args:
        data_dir: the folder that holds the unpacked archive's folder, or that folder itself.

    Raises:
        ValueError: a file is missing, damaged, changed since it was unpacked (if `SHA256SUMS` lies beside it),
            or not as published; the message names it.
    """
    folder = data_dir if data_dir.name == layout.folder else data_dir / layout.folder
    _check_complete(folder, layout)
    check_digests(
        folder,
        (*layout.train, layout.test, layout.meta),
        mend=f"remove it, then get the data with {how_to_get(layout.name, folder.parent)}",
    )
    classes = _class_names(folder / layout.meta, layout)
    pixels, labels = _read_split(folder, layout.train, layout)
    test_pixels, test_labels = _read_split(folder, (layout.test,), layout)
    validation, train = stratified_split(labels, (VALIDATION_SHARE,), SPLIT_SEED)
    train_pixels = pixels[train]
    normalisation = channel_statistics(train_pixels)
    return ImageData(
        name=layout.name,
        classes=classes,
        normalisation=normalisation,
        train=Split(train_pixels, labels[train], normalisation),
        validation=Split(pixels[validation], labels[validation], normalisation),
        test=Split(test_pixels, test_labels, normalisation),
    )


def _check_complete(folder: Path, layout: Layout) -> None:
    files = (*layout.train, layout.test, layout.meta)
    lacking = [name for name in files if not (folder / name).is_file()]
    if lacking:
        what = f"lacks {', '.join(lacking)}" if folder.is_dir() else "no such folder"
        raise ValueError(
            f"{folder}: {what}; get the data with {how_to_get(layout.name, folder.parent)}, or unpack "
            f"{layout.archive} there"
        )


def _class_names(path: Path, layout: Layout) -> tuple[str, ...]:
    names = _entry(path, read_pickle(path), layout.class_names, list)
    if len(names) != layout.num_classes or not all(type(n) is bytes for n in names):
        raise ValueError(
            f"{path}: names {len(names)} classes; {layout.name} has {layout.num_classes}, "
            f"each a string"
        )
    return tuple(name.decode("utf-8", "replace") for name in names)


def _read_split(folder: Path, files: tuple[str, ...], layout: Layout) -> tuple[Tensor, Tensor]:
    """uint8 pixels (n, 3, 32, 32) and labels (n,) of some batches; every class equally often."""
    parts = [_read_batch(folder / file, layout) for file in files]
    pixels = torch.from_numpy(np.concatenate([data for data, _ in parts]))
    labels = torch.tensor([label for _, batch in parts for label in batch])
    counts = torch.bincount(labels, minlength=layout.num_classes)
    if int(counts.min()) != int(counts.max()):
        raise ValueError(
            f"{folder}: {', '.join(files)} hold {int(counts.min())} to {int(counts.max())} images "
            f"per class; as published, every class is equally frequent; unpack {layout.archive} anew"
        )
    return pixels.reshape(-1, *SHAPE), labels


def _read_batch(path: Path, layout: Layout) -> tuple[np.ndarray, list[int]]:
    content = read_pickle(path)
    data = _entry(path, content, b"data", np.ndarray)
    labels = _entry(path, content, layout.labels, list)
    pixels = int(np.prod(SHAPE))
    if data.ndim != 2 or data.shape[1] != pixels or len(data) != len(labels) or not labels:
        raise ValueError(
            f"{path}: has data of shape {data.shape} and {len(labels)} labels; needs "
            f"(n, {pixels}) and n labels; unpack {layout.archive} anew"
        )
    for row, label in enumerate(labels):
        if type(label) is not int or not 0 <= label < layout.num_classes:
            raise ValueError(
                f"{path}: label {label!r} of image {row} must be a number in "
                f"0..{layout.num_classes - 1}; unpack {layout.archive} anew"
            )
    return data, labels


def _entry(path: Path, content: dict[bytes, Any], key: bytes, kind: type) -> Any:
    value = content.get(key)
    if not isinstance(value, kind):
        found = "is missing" if key not in content else f"is a {type(value).__name__}"
        have = ", ".join(sorted(map(str, content)))[:120] or "nothing"
        raise ValueError(
            f"{path}: {key.decode()!r} {found}, needs a {kind.__name__} (there is {have}); "
            f"is this the python version as published?"
        )
    return value
