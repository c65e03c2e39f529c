"""Small folders in the layout of the published CIFAR archives, pickled as Python 2 did."""

from __future__ import annotations

import io
import pickle
import struct
from pathlib import Path
from typing import ClassVar

import numpy as np

CLASSES = {"cifar10": 10, "cifar100": 100}
FOLDERS = {"cifar10": "cifar-10-batches-py", "cifar100": "cifar-100-python"}


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Protocol 2 with byte strings as Python 2 wrote them."""

    dispatch: ClassVar[dict] = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_bytes(self, value: bytes) -> None:
        short = len(value) < 256
        head = pickle.SHORT_BINSTRING + struct.pack("<B", len(value)) if short else None
        self.write((head or pickle.BINSTRING + struct.pack("<i", len(value))) + value)
        self.memoize(value)

    dispatch[bytes] = save_bytes


def python2_pickle(value: object) -> bytes:
    """`value` as a pickle of Python 2."""
    buffer = io.BytesIO()
    Python2Pickler(buffer, protocol=2).dump(value)
    return buffer.getvalue()


def python3_pickle(value: object) -> bytes:
    """The same protocol as Python 3 writes it."""
    return pickle.dumps(value, protocol=2)


def numbered_pixels(n: int, first: int, seed: int) -> np.ndarray:
    """(n, 3072) random bytes whose first two hold the image's number."""
    data = np.random.default_rng(seed).integers(0, 256, (n, 3072), dtype=np.uint8)
    data[:, 0] = (first + np.arange(n)) // 256
    data[:, 1] = (first + np.arange(n)) % 256
    return data


def write_cifar(root: Path, name: str, per_class: int = 10, dump=python2_pickle) -> Path:
    """A whole folder: 5 parts of training images, `per_class` of each class, and as many tests."""
    classes, folder = CLASSES[name], root / FOLDERS[name]
    folder.mkdir(parents=True)
    n = classes * per_class
    labels = np.random.default_rng(1).permutation(np.arange(n) % classes).tolist()
    train = numbered_pixels(n, 0, seed=2)
    test = numbered_pixels(n, n, seed=3)
    key = b"labels" if name == "cifar10" else b"fine_labels"
    names = [b"class %d" % i for i in range(classes)]

    def batch(file: str, data: np.ndarray, own: list[int]) -> None:
        content = {b"batch_label": b"a batch", key: own, b"data": data}
        if name == "cifar100":
            content[b"coarse_labels"] = [label // 5 for label in own]
        (folder / file).write_bytes(dump(content))

    if name == "cifar10":
        for i in range(5):
            part = slice(i * n // 5, (i + 1) * n // 5)
            batch(f"data_batch_{i + 1}", train[part], labels[part])
        batch("test_batch", test, labels[::-1])
        meta = {b"num_cases_per_batch": n // 5, b"label_names": names, b"num_vis": 3072}
        (folder / "batches.meta").write_bytes(dump(meta))
    else:
        batch("train", train, labels)
        batch("test", test, labels[::-1])
        coarse = [b"group %d" % i for i in range(20)]
        meta = {b"fine_label_names": names, b"coarse_label_names": coarse}
        (folder / "meta").write_bytes(dump(meta))
    return root
