"""Data sets by name."""

from __future__ import annotations

from pathlib import Path

from spikingmoe.config import ModelConfig, unknown
from spikingmoe.data.cifar import load_cifar10, load_cifar100
from spikingmoe.data.digits import load_digits
from spikingmoe.data.events import EVENT_SETS, load_events
from spikingmoe.data.image_data import ImageData, Normalisation, Split
from spikingmoe.data.image_folder import load_folder
from spikingmoe.data.progress import Watch, unwatched
from spikingmoe.data.published import data_home, provide
from spikingmoe.data.user_module import is_user_module, load_user_module

BUNDLED, FOLDER = "digits", "folder"  # with a dependency; of the user's own
BINARY = "digits-binary"  # the same images, as spikes of one bit
CIFAR = {"cifar10": load_cifar10, "cifar100": load_cifar100}
#: What every data set is, for help texts.
DATA_SETS = {
    BUNDLED: "comes with a dependency",
    BINARY: "the same, pixels as 0 or 1, for chips without graded spikes",
    **dict.fromkeys(CIFAR, "downloaded on first use"),
    **dict.fromkeys(EVENT_SETS, "event camera, see `spikingmoe download`"),
    FOLDER: "images of your own, --data-dir DIR with DIR/train/CLASS/*.png or jpg",
}


def load_data(
    name: str,
    data_dir: str | Path | None = None,
    *,
    image_size: int | None = None,
    channels: int | None = None,
    time_steps: int | None = None,
    watch: Watch = unwatched,
) -> ImageData:
    """The data set called `name`.

    Args:
        name: of `DATA_SETS`; or package.module:ClassName or file.py:ClassName, a LightningDataModule
            (`spikingmoe.data.user_module`).
        data_dir: the folder that it is read from. Without one, what is published is read from the
            default folder (`data_home`), and CIFAR is downloaded there if it is missing.
        image_size, channels, time_steps: of the model, for data that are made to measure: event data
            need size and time steps, a folder of images size and channels. Others keep their own.
        watch: told what takes long, and how far it is.

    Raises:
        ValueError: unknown name (the message lists them), a folder that is missing or not needed,
            files that are missing (with the command that gets them) or not as published.
    """
    if is_user_module(name):
        return load_user_module(name, data_dir, watch=watch)
    if name not in DATA_SETS:
        raise ValueError(unknown("data set", name, DATA_SETS))
    if name in (BUNDLED, BINARY):
        if data_dir is not None:
            raise ValueError(
                f"data '{name}' comes with a dependency and is read from no folder; leave --data-dir out"
            )
        return load_digits(binary=name == BINARY)
    if name == FOLDER:
        if data_dir is None:
            raise ValueError(
                f"data '{name}' is read from a folder of yours; give the one that holds "
                f"train/CLASS/*.png or jpg with --data-dir"
            )
        size, channels = _needed(name, image_size=image_size, channels=channels)
        return load_folder(Path(data_dir), size, channels, watch=watch)
    folder = data_home() if data_dir is None else Path(data_dir)
    if name in CIFAR:
        if data_dir is None:
            provide(name, folder, watch=watch)
        return CIFAR[name](folder)
    size, steps = _needed(name, image_size=image_size, time_steps=time_steps)
    return load_events(name, folder, image_size=size, time_steps=steps, watch=watch)


def load_data_for(
    config: ModelConfig, name: str, data_dir: str | Path | None = None, *, watch: Watch = unwatched
) -> ImageData:
    """`load_data` in the size that a model takes."""
    return load_data(
        name,
        data_dir,
        image_size=config.image_size,
        channels=config.input_channels,
        time_steps=config.time_steps,
        watch=watch,
    )


def _needed(name: str, **given: int | None) -> tuple[int, ...]:
    for what, value in given.items():
        if value is None or value < 1:
            raise ValueError(
                f"data '{name}' is made to measure; load_data needs {what} (at least 1), got {value}"
            )
    return tuple(value for value in given.values() if value is not None)


__all__ = [
    "BUNDLED",
    "DATA_SETS",
    "ImageData",
    "Normalisation",
    "Split",
    "load_data",
    "load_data_for",
]
