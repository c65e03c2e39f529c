"""Data sets by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from spikingmoe.config import unknown
from spikingmoe.data.cifar import load_cifar10, load_cifar100
from spikingmoe.data.digits import load_digits
from spikingmoe.data.image_data import ImageData, Normalisation, Split

#: Data sets that come with a dependency.
BUNDLED: dict[str, Callable[[], ImageData]] = {"digits": load_digits}
#: Data sets that are read from a folder of the user's.
LOCAL: dict[str, Callable[[Path], ImageData]] = {
    "cifar10": load_cifar10,
    "cifar100": load_cifar100,
}
DATA_SETS = (*BUNDLED, *LOCAL)


def load_data(name: str, data_dir: str | Path | None = None) -> ImageData:
    """The data set called `name`.

    Args:
        data_dir: the folder that a data set is read from; none for one that comes with a dependency.

    Raises:
        ValueError: unknown name (the message lists them), a folder that is missing or not needed,
            or files that are not as published.
    """
    if name in LOCAL:
        if data_dir is None:
            raise ValueError(
                f"data '{name}' is read from a local folder, and nothing is downloaded; "
                f"give the folder with --data-dir"
            )
        return LOCAL[name](Path(data_dir))
    if name not in BUNDLED:
        raise ValueError(unknown("data set", name, DATA_SETS))
    if data_dir is not None:
        raise ValueError(
            f"data '{name}' comes with a dependency and is read from no folder; leave --data-dir out"
        )
    return BUNDLED[name]()


__all__ = ["DATA_SETS", "ImageData", "Normalisation", "Split", "load_data"]
