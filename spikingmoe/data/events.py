"""Event cameras: N-MNIST, DVS Gesture and CIFAR10-DVS as frames of counted events, read through Tonic.

Sources: Orchard et al., "Converting static image datasets to spiking neuromorphic datasets using saccades"
(2015); Amir et al., "A low power, fully event-based gesture recognition system" (2017); Li et al.,
"CIFAR10-DVS" (2017). Files are those that the package Tonic knows, in its folders (`DIR/NMNIST/Train/...`).

Counts are divided by their root mean square over the training frames and not centred: a pixel without
events stays 0 and costs no operation. Counts beyond the 99.9th percentile of the non-zero ones in the
training frames (pixels that fire all the time) are set to it, since they would spoil the scale of a
fixed-point input.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from spikingmoe.data.event_frames import POLARITIES, count_events, frame_side, pad_centre
from spikingmoe.data.frame_cache import MOST_BYTES, read_frames, write_frames
from spikingmoe.data.image_data import ImageData, Normalisation, Split, stratified_split
from spikingmoe.data.progress import Watch, unwatched
from spikingmoe.data.published import CIFAR10_CLASSES, alone_in, data_home, how_to_get, missing

SPLIT_SEED = 20260101
SHARE = (
    0.1  # of every class for validation; the same for the test of CIFAR10-DVS, as the field does
)
VALIDATION_USERS = (
    3  # of DVS Gesture's 23 in the training set; its test set is of other people, too
)
SATURATION = 0.999  # quantile of the non-zero counts


@dataclass(frozen=True, kw_only=True)
class EventSet:
    """A data set of recordings.

    Attributes:
        tonic: name of Tonic's class, and of its folder.
        sensor: side in pixels.
        has_test: it is published with a test set.
        packages: that reading needs.
    """

    name: str
    tonic: str
    sensor: int
    classes: tuple[str, ...]
    has_test: bool = True
    packages: tuple[str, ...] = ("tonic",)


EVENT_SETS = {
    s.name: s
    for s in (
        EventSet(
            name="nmnist", tonic="NMNIST", sensor=34, classes=tuple(str(d) for d in range(10))
        ),
        EventSet(
            name="dvsgesture",
            tonic="DVSGesture",
            sensor=128,
            classes=(
                "hand clapping",
                "right hand wave",
                "left hand wave",
                "right arm clockwise",
                "right arm counter-clockwise",
                "left arm clockwise",
                "left arm counter-clockwise",
                "arm roll",
                "air drums",
                "air guitar",
                "other gestures",
            ),
        ),
        EventSet(
            name="cifar10dvs",
            tonic="CIFAR10DVS",
            sensor=128,
            classes=CIFAR10_CLASSES,
            has_test=False,
            packages=("tonic", "aedat"),
        ),
    )
}

Arrays = dict[str, np.ndarray]  # frames, labels, test (booleans), groups (people; else 0)


def load_events(
    name: str, data_dir: Path, *, image_size: int, time_steps: int, watch: Watch = unwatched
) -> ImageData:
    """A data set as frames, uint8 counts (n, T, 2, image_size, image_size).

    Counted frames are kept beside the data (in the default folder if that place takes no files).

    Args:
        data_dir: the folder that holds Tonic's folder of the data set, or that folder itself.

    Raises:
        ValueError: files are missing (with the command that gets them) or damaged (by name), a package
            is missing, or the frames are too many for one file.
    """
    events = EVENT_SETS[name]
    folder = data_dir.parent if data_dir.name == events.tonic else data_dir
    lacking = [a.folder for a in missing(name, folder)]
    if lacking:
        raise ValueError(
            f"{folder}: lacks {', '.join(lacking)} of '{name}'; get the data with "
            f"{how_to_get(name, folder)}"
        )
    arrays = _frames(events, folder, image_size, time_steps, watch)
    test, validation, train = _splits(events, arrays)
    labels = torch.from_numpy(arrays["labels"].astype(np.int64))
    frames = arrays["frames"]
    limit = _saturation(frames, train)
    np.minimum(frames, limit, out=frames)
    normalisation = _scale(frames, train, image_size)

    def split(index: torch.Tensor) -> Split:
        own = pad_centre(frames[index.numpy()], image_size)  # one part at a time: they are large
        return Split(torch.from_numpy(own), labels[index], normalisation)

    return ImageData(
        name=name,
        classes=events.classes,
        normalisation=normalisation,
        train=split(train),
        validation=split(validation),
        test=split(test),
    )


def _frames(
    events: EventSet, folder: Path, image_size: int, time_steps: int, watch: Watch
) -> Arrays:
    """Frames of the sensor's side, from the file that keeps them, or counted and kept."""
    side = frame_side(events.sensor, image_size)
    about: dict[str, object] = {
        "data": events.name,
        "time_steps": time_steps,
        "side": side,
        "recordings": _fingerprint(folder / events.tonic),
    }
    place = folder if os.access(folder, os.W_OK) else data_home()
    path = place / f"{events.name}-{time_steps}x{side}.frames"
    with alone_in(place):
        arrays = read_frames(path, about)
        if arrays is None:
            arrays = _count(events, folder, image_size, time_steps, watch)
            write_frames(path, arrays, about)
    return arrays


def _count(
    events: EventSet, folder: Path, image_size: int, time_steps: int, watch: Watch
) -> Arrays:
    parts = [
        _open(events, folder, train) for train in ((True, False) if events.has_test else (None,))
    ]
    recordings = [
        (str(path), part, index)
        for part, recorded in enumerate(parts)
        for index, path in enumerate(recorded.data)
    ]
    recordings.sort()  # some of Tonic's classes list files as the file system does
    side = frame_side(events.sensor, image_size)
    shape = (len(recordings), time_steps, POLARITIES, side, side)
    if np.prod(shape, dtype=np.int64) > MOST_BYTES:
        raise ValueError(
            f"data '{events.name}': {shape[0]} recordings of {time_steps} frames of {side}x{side} are "
            f"{np.prod(shape, dtype=np.int64) / 1e9:.1f} GB, at most {MOST_BYTES / 1e9:.1f} can be kept; "
            f"use fewer --time-steps or a smaller --image-size"
        )
    arrays: Arrays = {
        "frames": np.zeros(shape, np.uint8),
        "labels": np.zeros(shape[0], np.int16),
        "test": np.zeros(shape[0], bool),
        "groups": np.zeros(shape[0], np.int16),
    }
    with watch(f"counting the events of {events.name}") as update:
        for row, (path, part, index) in enumerate(recordings):
            try:
                recording, label = parts[part][index]
                arrays["frames"][row] = count_events(
                    recording, sensor=events.sensor, time_steps=time_steps, image_size=image_size
                )
            except Exception as error:  # a damaged recording can fail in any way
                reason = " ".join(str(error).split())[:200] or type(error).__name__
                raise ValueError(
                    f"{path}: is no recording as published ({reason}); get it anew: remove "
                    f"{folder / events.tonic} and use {how_to_get(events.name, folder)}"
                ) from None
            arrays["labels"][row] = label
            arrays["test"][row] = part == 1
            arrays["groups"][row] = parts[part].users[index] if hasattr(parts[part], "users") else 0
            update(row + 1, len(recordings))
    _check_classes(events, folder, arrays)
    return arrays


def _open(events: EventSet, folder: Path, train: bool | None) -> Any:
    """Tonic's data set over the files that are there; it downloads nothing."""
    for package in events.packages:
        try:
            __import__(package)
        except ImportError:
            raise ValueError(
                f"data '{events.name}' is read by the package {package}, which is missing; "
                f"install it with: pip install 'spikingmoe[events]'"
            ) from None
    import tonic.datasets

    base = getattr(tonic.datasets, events.tonic)
    local = type(base.__name__, (base,), {"_check_exists": lambda self: True})
    return local(str(folder)) if train is None else local(str(folder), train=train)


def _check_classes(events: EventSet, folder: Path, arrays: Arrays) -> None:
    parts = (False, True) if events.has_test else (False,)
    for test in parts:
        labels = arrays["labels"][arrays["test"] == test]
        found = set(labels.tolist())
        wrong = [events.classes[k] for k in set(range(len(events.classes))) - found]
        if wrong or max(found) >= len(events.classes):
            raise ValueError(
                f"{folder / events.tonic}: the {'test' if test else 'training'} set lacks recordings of "
                f"{', '.join(wrong) or 'known classes alone'}; remove the folder and use "
                f"{how_to_get(events.name, folder)}"
            )


def _splits(events: EventSet, arrays: Arrays) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Indices of (test, validation, train)."""
    labels = torch.from_numpy(arrays["labels"].astype(np.int64))
    if not events.has_test:
        test, validation, train = stratified_split(labels, (SHARE, SHARE * (1 - SHARE)), SPLIT_SEED)
        return test, validation, train
    is_test = torch.from_numpy(arrays["test"])
    test, rest = is_test.nonzero().flatten(), (~is_test).nonzero().flatten()
    groups = torch.from_numpy(arrays["groups"].astype(np.int64))[rest]
    people = groups.unique()
    if len(people) > 1:
        held_out = torch.isin(groups, people[-VALIDATION_USERS:])
        return test, rest[held_out], rest[~held_out]
    validation, train = stratified_split(labels[rest], (SHARE,), SPLIT_SEED)
    return test, rest[validation], rest[train]


def _saturation(frames: np.ndarray, train: torch.Tensor) -> int:
    counts = np.zeros(256, np.int64)
    for row in train.tolist():
        counts += np.bincount(frames[row].reshape(-1), minlength=256)
    reached = np.cumsum(counts[1:]) / max(1, counts[1:].sum())
    return 1 + int(np.searchsorted(reached, SATURATION))


def _scale(frames: np.ndarray, train: torch.Tensor, image_size: int) -> Normalisation:
    """Mean 0 and the root mean square of each polarity over the padded training frames."""
    squares = np.zeros(POLARITIES, np.int64)
    for row in train.tolist():
        squares += (frames[row].astype(np.int64) ** 2).sum(axis=(0, 2, 3))
    pixels = len(train) * frames.shape[1] * image_size**2
    rms = np.sqrt(np.maximum(squares, 1) / pixels) / 255.0
    return Normalisation((0.0,) * POLARITIES, tuple(rms.tolist()))


def _fingerprint(folder: Path) -> str:
    """SHA-256 over names and sizes of all files below a folder: other recordings, other frames."""
    found: Mapping[str, int] = {
        os.path.relpath(entry.path, folder): entry.stat().st_size for entry in _files(folder)
    }
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()


def _files(folder: str | Path) -> list[os.DirEntry[str]]:
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            found += _files(entry.path) if entry.is_dir() else [entry]
    return found
