"""A checkpoint as one safetensors archive, written by the one writer; no code runs on loading."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.plugins.io import CheckpointIO

from hardware.errors import FileError
from hardware.files import read_archive, write_archive

KIND, FORMAT_VERSION = "spikingmoe-checkpoint", 1
ABOUT = "spikingmoe"  # the key under which a checkpoint describes itself


class ArchiveIO(CheckpointIO):
    """Lightning's checkpoints as archives: tensors as arrays, everything else as JSON."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None
    ) -> None:
        arrays: dict[str, np.ndarray] = {}
        tree = _encode(checkpoint, arrays)
        write_archive(Path(path), arrays, {"tree": tree}, kind=KIND, version=FORMAT_VERSION)

    def load_checkpoint(
        self, path: Any, map_location: Any = None, weights_only: Any = None
    ) -> dict[str, Any]:
        return read_checkpoint(Path(path))

    def remove_checkpoint(self, path: Any) -> None:
        Path(path).unlink(missing_ok=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The whole content of a checkpoint; FileError if it is not a valid one."""
    arrays, meta = read_archive(path, kind=KIND, version=FORMAT_VERSION)
    try:
        tree = _decode(meta["tree"], arrays)
        if not isinstance(tree, dict) or not {"state_dict", "epoch", ABOUT} <= set(tree):
            raise ValueError("no checkpoint")
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise FileError(
            f"{path}: holds no checkpoint ({error}); train again or use another"
        ) from None
    return tree


def _encode(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """JSON for nested containers; tensors go to `arrays` and leave their key."""
    if isinstance(value, torch.Tensor):
        key = f"t{len(arrays)}"
        arrays[key] = value.detach().cpu().numpy()
        return {"tensor": key}
    if isinstance(value, Mapping):
        return {"dict": [[_encode(k, arrays), _encode(v, arrays)] for k, v in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_encode(v, arrays) for v in value]}
    if isinstance(value, list):
        return {"list": [_encode(v, arrays) for v in value]}
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise FileError(f"a checkpoint cannot hold a {type(value).__name__}")


def _decode(value: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    if not isinstance(value, dict):
        return value
    (kind, content), *more = value.items()
    if more:
        raise ValueError("malformed tree")
    if kind == "tensor":
        return torch.from_numpy(arrays[content].copy())
    if kind == "dict":
        return {_decode(k, arrays): _decode(v, arrays) for k, v in content}
    if kind in ("list", "tuple"):
        items = [_decode(v, arrays) for v in content]
        return items if kind == "list" else tuple(items)
    raise ValueError(f"malformed tree: {kind!r}")
