"""A folder of images of the user's own: DIR/train/CLASS/*.png, jpg or webp."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from spikingmoe.data.image_data import (
    ImageData,
    Split,
    channel_statistics,
    stratified_split,
)
from spikingmoe.data.image_files import MODES, read_image
from spikingmoe.data.progress import Watch, unwatched

SPLIT_SEED = 20260101
SHARE = 0.1  # of every class, for a part that the folder does not have
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
PARTS = ("train", "validation", "test")


def load_folder(
    data_dir: Path, image_size: int, channels: int, *, watch: Watch = unwatched
) -> ImageData:
    """All images of a folder as uint8, read as `image_files.read_image` does.

    DIR/validation and DIR/test are taken where they are; a part that is missing is a tenth of every class
    of the training images, always the same for the same files.

    Args:
        image_size: side of the images.
        channels: 3 for colour, 1 for grey.

    Raises:
        ValueError: no such folder, fewer than two classes, a class without images, a class that the
            training images lack, an image that cannot be read; the message names it.
    """
    if channels not in MODES:
        raise ValueError(
            f"data 'folder': images have 1 or 3 channels, the model takes {channels}; use a preset "
            f"with --input-channels=1 or 3"
        )
    if not (data_dir / "train").is_dir():
        raise ValueError(
            f"{data_dir}: has no folder 'train'; needs train/CLASS/*.png or jpg (and, if you like, "
            f"validation/ and test/ alike)"
        )
    classes = _classes(data_dir / "train")
    if len(classes) < 2:
        raise ValueError(
            f"{data_dir / 'train'}: has classes ({', '.join(classes) or 'none'}); needs a folder for each "
            f"of at least two"
        )
    listed = {
        part: _listed(data_dir / part, classes) for part in PARTS if (data_dir / part).is_dir()
    }
    total, parts = sum(map(len, listed.values())), {}
    with watch(f"reading {total} images") as update:
        done = 0
        for part, files in listed.items():
            pixels = torch.empty(len(files), channels, image_size, image_size, dtype=torch.uint8)
            for row, (path, _) in enumerate(files):
                pixels[row] = read_image(path, channels=channels, size=image_size)
                done += 1
                update(done, total)
            parts[part] = (pixels, torch.tensor([label for _, label in files]))
    return _assemble(data_dir, classes, parts)


def _assemble(
    data_dir: Path, classes: tuple[str, ...], parts: dict[str, tuple[Tensor, Tensor]]
) -> ImageData:
    pixels, labels = parts["train"]
    absent = [part for part in PARTS[1:] if part not in parts]
    taken = stratified_split(labels, (SHARE,) * len(absent), SPLIT_SEED)
    for part, index in zip(absent, taken, strict=False):
        lacking = [
            name for label, name in enumerate(classes) if not bool((labels[index] == label).any())
        ]
        if lacking:
            raise ValueError(
                f"{data_dir / 'train'}: has too few images of {lacking[0]!r} to take a tenth of every "
                f"class for {part} (at least 6 of each); add images, or a folder {part}/"
            )
        parts[part] = (pixels[index], labels[index])
    if absent:
        parts["train"] = (pixels[taken[-1]], labels[taken[-1]])
    normalisation = channel_statistics(parts["train"][0])
    train, validation, test = (Split(*parts[part], normalisation) for part in PARTS)
    return ImageData(
        name="folder",
        classes=classes,
        normalisation=normalisation,
        train=train,
        validation=validation,
        test=test,
    )


def _classes(folder: Path) -> tuple[str, ...]:
    """Names of the folders in a folder, sorted; hidden ones are not classes."""
    return tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != "."))


def _listed(folder: Path, classes: tuple[str, ...]) -> list[tuple[Path, int]]:
    """The images of one part with their labels, in the order of their names."""
    strange = sorted(set(_classes(folder)) - set(classes))
    if strange:
        raise ValueError(
            f"{folder / strange[0]}: class '{strange[0]}' has no training images; add "
            f"train/{strange[0]}/, or remove it"
        )
    files = []
    for label, name in enumerate(classes):
        if not (folder / name).is_dir():
            raise ValueError(
                f"{folder}: has no folder '{name}', which is a class of the training images; add it"
            )
        own = sorted(
            Path(entry.path)
            for entry in os.scandir(folder / name)
            if entry.is_file() and entry.name.lower().endswith(SUFFIXES) and entry.name[0] != "."
        )
        if not own:
            raise ValueError(
                f"{folder / name}: holds no image; put files into it that end in {', '.join(SUFFIXES)}"
            )
        files += [(path, label) for path in own]
    return files
