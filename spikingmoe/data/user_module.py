"""Data of the user's own code: a LightningDataModule, found by module (or file) and class name."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import itertools
import os
import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spikingmoe.data.image_data import ImageData, Normalisation, Split
from spikingmoe.data.progress import Watch, unwatched

EXAMPLE = "package.module:ClassName or file.py:ClassName"
SAMPLED_BATCHES = 8  # of training images, for the input's limit and `train`


class SeededBatches:
    """A user's training batches; generators are seeded for each epoch and batch.

    Those of Python, NumPy and torch, and (per epoch) the loader's own. So a run that goes on sees the batches that an
    uninterrupted one would; within an epoch those that were done are drawn again and left out.
    """

    def __init__(self, loader: Any, seed: int) -> None:
        self.loader, self.seed = loader, seed
        self.epoch = 0
        self.done = (-1, 0)  # (epoch, batches of it that are left out)
        self.sampler = self  # where Lightning looks for `set_epoch`

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this before the first batch is drawn."""
        self.epoch = epoch
        own = getattr(getattr(self.loader, "sampler", None), "set_epoch", None)
        if callable(own):
            own(epoch)

    def resume_at(self, epoch: int, steps: int) -> None:
        """Go on in `epoch` behind its first `steps` batches; later epochs are whole."""
        self.epoch, self.done = epoch, (epoch, steps)

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        seed = (self.seed * 1_000_003 + self.epoch) % 2**32
        batches = getattr(self.loader, "batch_sampler", None)
        sampler, inner = getattr(self.loader, "sampler", None), getattr(batches, "sampler", None)
        for owner in (self.loader, sampler, batches, inner):
            if isinstance(generator := getattr(owner, "generator", None), torch.Generator):
                generator.manual_seed(seed)
        with _draws_of(seed):
            iterator = iter(self.loader)
        epoch, steps = self.done
        left_out = steps if epoch == self.epoch else 0
        for number in itertools.count():
            # Each batch has draws of its own, whatever the model drew before it.
            with _draws_of((seed + (number + 1) * 7_368_787) % 2**32):
                batch = next(iterator, None)
            if batch is None:
                return
            if number >= left_out:
                yield batch


@contextmanager
def _draws_of(seed: int) -> Iterator[None]:
    """All generators at `seed` in the block, and as they were after it."""
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(before[0])
        np.random.set_state(before[1])  # noqa: NPY002
        torch.set_rng_state(before[2])


@dataclass(frozen=True)
class ModuleData(ImageData):
    """Data that a LightningDataModule loads; `train` holds the first batches only.

    Attributes:
        loader: all training batches (images, labels).
        batch_size: of its first batch.
    """

    loader: Any = None
    batch_size: int = 0

    def batches(self, seed: int) -> SeededBatches:
        """The training batches of a run."""
        return SeededBatches(self.loader, seed)


def is_user_module(name: str) -> bool:
    """Whether a data set's name means a class of the user's."""
    return ":" in name


def load_user_module(
    name: str, data_dir: str | Path | None = None, *, watch: Watch = unwatched
) -> ModuleData:
    """Build the class, ask it for its loaders, and check what they give.

    The class is built without arguments, or with `data_dir=` if that is given. It needs `classes`
    (names) or `num_classes`, and may have `normalisation` = (mean, std) of its images per channel;
    images without are taken to be in 0..1. Validation and test images are held in memory.

    Args:
        name: package.module:ClassName, or path/file.py:ClassName.

    Raises:
        ValueError: nothing of that name, or what it gives is not as the model takes it.
    """
    place, _, class_name = name.rpartition(":")
    found = _class(name, _import(name, place), class_name)
    module = _call(name, "building it", found, **({"data_dir": data_dir} if data_dir else {}))
    _call(name, "prepare_data", module.prepare_data)
    for stage in ("fit", "test"):
        _call(name, f"setup({stage!r})", module.setup, stage)
    loaders = {
        split: _loader(name, module, f"{split}_dataloader") for split in ("train", "val", "test")
    }
    classes = _classes(name, module)
    # The limit of a chip's input comes from the first training batches: the same ones each time.
    with watch(f"data {class_name}") as update, _draws_of(0):
        parts = {}
        for done, (split, loader) in enumerate(loaders.items()):
            most = SAMPLED_BATCHES if split == "train" else None
            parts[split] = _split(f"{name}: {split}_dataloader", loader, len(classes), most)
            update(done + 1, len(loaders))
    shapes = {split: tuple(part.stored.shape[1:]) for split, part in parts.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"data '{name}': images have shapes {shapes}; all splits need the same")
    first = next(iter(loaders["train"]))
    return ModuleData(
        name=name,
        classes=classes,
        normalisation=_normalisation(name, module, parts["train"].image_shape[0]),
        train=parts["train"],
        validation=parts["val"],
        test=parts["test"],
        loader=loaders["train"],
        batch_size=len(first[1]),
    )


def _import(name: str, place: str) -> ModuleType:
    if place.endswith(".py"):
        path = Path(place)
        if not path.is_file():
            raise ValueError(f"data '{name}': there is no file {path}; use {EXAMPLE}")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules.setdefault(path.stem, module)  # workers that are started anew find it there
        _call(name, "importing it", spec.loader.exec_module, module)
        return module
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        return _call(name, "importing it", importlib.import_module, place)
    finally:
        sys.path.remove(here)


def _class(name: str, module: ModuleType, class_name: str) -> type:
    from lightning import LightningDataModule

    kinds = [n for n, v in vars(module).items() if isinstance(v, type)]
    found = getattr(module, class_name, None)
    if not isinstance(found, type):
        close = difflib.get_close_matches(class_name, kinds, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"data '{name}': there is no class {class_name!r}{hint}; use {EXAMPLE}")
    if not issubclass(found, LightningDataModule):
        raise ValueError(
            f"data '{name}': {class_name} is no LightningDataModule; derive it from one"
        )
    return found


def _call(name: str, what: str, called: Any, *args: Any, **kwargs: Any) -> Any:
    try:
        return called(*args, **kwargs)
    except Exception as error:
        cause = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ValueError(f"data '{name}': {what} fails: {cause}") from error


def _loader(name: str, module: Any, method: str) -> Any:
    loader = _call(name, method, getattr(module, method))
    try:
        length = len(loader)
    except TypeError:
        length = 0
    once = isinstance(loader, (list, tuple, dict, Iterator))  # several loaders, or a single pass
    if length < 1 or once:
        raise ValueError(
            f"data '{name}': {method} gives {type(loader).__name__}; needs one DataLoader with a length, "
            f"not empty"
        )
    return loader


def _classes(name: str, module: Any) -> tuple[str, ...]:
    classes, number = getattr(module, "classes", None), getattr(module, "num_classes", None)
    if classes is not None:
        return tuple(str(c) for c in classes)
    if isinstance(number, int) and number > 1:
        return tuple(str(c) for c in range(number))
    raise ValueError(
        f"data '{name}': has neither classes (a list of names) nor num_classes (above 1); set one"
    )


def _normalisation(name: str, module: Any, channels: int) -> Normalisation:
    given = getattr(module, "normalisation", None)
    if given is None:
        return Normalisation((0.0,) * channels, (1.0,) * channels)
    try:
        mean, std = given
        return Normalisation(tuple(float(m) for m in mean), tuple(float(s) for s in std))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"data '{name}': normalisation={given!r} needs (mean, std), each with one number per "
            f"channel ({error})"
        ) from None


def _split(where: str, loader: Any, num_classes: int, most: int | None) -> Split:
    """The samples of a loader, of its first `most` batches, checked."""
    images, labels = [], []
    for number, batch in enumerate(loader):
        if number == most:
            break
        check_batch(where, batch, num_classes)
        images.append(batch[0])
        labels.append(batch[1].long())
        if images[-1].shape[1:] != images[0].shape[1:]:
            raise ValueError(
                f"data '{where}': images of {tuple(images[0].shape[1:])} and of "
                f"{tuple(images[-1].shape[1:])}; all need the same shape"
            )
    return Split(torch.cat(images), torch.cat(labels))


def check_batch(where: str, batch: Any, num_classes: int) -> None:
    """ValueError unless a batch is (images float32 (B, C, height, width), labels (B,) of classes)."""
    need = "needs (images, labels)"
    if not isinstance(batch, (list, tuple)) or len(batch) != 2:
        raise ValueError(f"data '{where}' gives {type(batch).__name__}; {need}")
    images, labels = batch
    if not isinstance(images, Tensor) or images.ndim != 4 or images.dtype != torch.float32:
        got = (
            f"{images.dtype} of shape {tuple(images.shape)}"
            if isinstance(images, Tensor)
            else type(images).__name__
        )
        raise ValueError(
            f"data '{where}' gives images that are {got}; needs torch.float32 of shape "
            f"(batch, channels, height, width)"
        )
    whole = isinstance(labels, Tensor) and not labels.is_floating_point() and labels.ndim == 1
    if not whole or len(labels) != len(images):
        got = (
            f"{labels.dtype} of shape {tuple(labels.shape)}"
            if isinstance(labels, Tensor)
            else type(labels).__name__
        )
        raise ValueError(
            f"data '{where}' gives labels that are {got}; needs whole numbers of shape "
            f"({len(images)},)"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise ValueError(
            f"data '{where}' gives labels from {low} to {high}; with {num_classes} classes they are "
            f"0 to {num_classes - 1}"
        )
    if not bool(torch.isfinite(images).all()):
        raise ValueError(f"data '{where}' gives images with values that are no finite numbers")
