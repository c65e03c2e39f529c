"""Checkpoints: one safetensors archive each, written by the one writer; no code runs on loading.

The only module of `spikingmoe` besides the command line that knows `hardware`: it uses its files.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch.plugins.io import CheckpointIO

from hardware.errors import FileError
from hardware.files import read_archive, write_archive
from spikingmoe.config import ModelConfig, TrainConfig, model_config, train_config
from spikingmoe.model import SpikingTransformer

KIND, FORMAT_VERSION = "spikingmoe-checkpoint", 1
KEPT = 2  # resume falls back on the one before if the newest is damaged
PATTERN = re.compile(r"epoch-(\d+)\.safetensors")
ABOUT = "spikingmoe"  # the key under which a checkpoint describes itself


@dataclass(frozen=True)
class Run:
    """A trained model and how it came about.

    Attributes:
        epoch: epochs completed.
        history: one record per epoch (loss, train and validation accuracy).
        versions: of the packages it was trained with.
    """

    path: Path
    model: SpikingTransformer
    model_config: ModelConfig
    train_config: TrainConfig
    epoch: int
    history: list[dict[str, float]]
    versions: dict[str, str]

    @property
    def folder(self) -> Path:
        """The run's folder (the file's own, for a checkpoint that lies elsewhere)."""
        parent = self.path.parent
        return parent.parent if parent.name == "checkpoints" else parent


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


def about(
    model: ModelConfig, train: TrainConfig, history: list[dict[str, float]]
) -> dict[str, Any]:
    """What a checkpoint says of itself."""
    return {
        "model": model.as_dict(),
        "train": train.as_dict(),
        "history": history,
        "versions": package_versions(),
    }


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what a run computes."""
    packages = ("torch", "snntorch", "lightning", "numpy", "spikingmoe")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def checkpoints(run: Path) -> list[Path]:
    """A run's checkpoints, newest first."""
    found = [
        (int(m[1]), p) for p in (run / "checkpoints").glob("*") if (m := PATTERN.fullmatch(p.name))
    ]
    return [path for _, path in sorted(found, reverse=True)]


def make_run_folder(run: Path) -> None:
    """Create the folder for checkpoints before any work is done; FileError if that is impossible."""
    try:
        (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{run}: cannot hold a run ({error.strerror}); use another --out") from None


def newest_valid(run: Path) -> Path | None:
    """The newest checkpoint that verifies; None if there is none at all.

    Raises:
        FileError: if there are checkpoints and every one is damaged.
    """
    first: FileError | None = None
    for path in checkpoints(run):
        try:
            read_checkpoint(path)
        except FileError as error:
            first = first or error
        else:
            return path
    if first is not None:
        raise first
    return None


def load_run(path: str | Path) -> Run:
    """Load a run's folder (its newest valid checkpoint) or one checkpoint file.

    Raises:
        FileError: nothing there, or nothing valid.
    """
    path = Path(path)
    if not path.exists():
        raise FileError(f"{path}: no such run; give the folder that `spikingmoe train --out` wrote")
    file = newest_valid(path) if path.is_dir() else path
    if file is None:
        raise FileError(f"{path}: holds no checkpoint; train with `spikingmoe train --out {path}`")
    content = read_checkpoint(file)
    try:
        notes = content[ABOUT]
        config = model_config(notes["model"])
        model = SpikingTransformer(config)
        prefix = "model."
        state = {k.removeprefix(prefix): v for k, v in content["state_dict"].items()}
        model.load_state_dict(state)
        return Run(
            path=file,
            model=model.eval(),
            model_config=config,
            train_config=train_config(notes["train"]),
            epoch=int(content["epoch"]) + 1,
            history=list(notes["history"]),
            versions=dict(notes["versions"]),
        )
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FileError(f"{file}: holds another kind of model ({reason})") from None


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
