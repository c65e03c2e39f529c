"""A trained model as its run's folder holds it, and what a checkpoint says of itself."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from hardware.errors import FileError
from spikingmoe.config import ModelConfig, TrainConfig, model_config, train_config
from spikingmoe.data.data_notes import DataNotes, data_notes
from spikingmoe.model import SpikingTransformer
from spikingmoe.train.bundled import bundled_file, bundled_names, is_bundled
from spikingmoe.train.checkpoint.archive import ABOUT, read_checkpoint
from spikingmoe.train.checkpoint.folder import newest_valid


@dataclass(frozen=True)
class Run:
    """A trained model and how it came about.

    Attributes:
        epoch: epochs completed.
        steps: steps done of the epoch that follows; 0 at the end of an epoch.
        history: one record per epoch (loss, train and validation accuracy).
        versions: of the packages it was trained with.
        data_notes: classes and normalisation of its data; None if an earlier version trained it.
    """

    path: Path
    model: SpikingTransformer
    model_config: ModelConfig
    train_config: TrainConfig
    epoch: int
    history: list[dict[str, float]]
    versions: dict[str, str]
    steps: int = 0
    data_notes: DataNotes | None = None

    @property
    def folder(self) -> Path:
        """The run's folder (the file's own, for a checkpoint that lies elsewhere).

        For a bundled checkpoint a folder of its name in the working directory.
        """
        if is_bundled(self.path):
            return Path(self.path.stem)
        parent = self.path.parent
        return parent.parent if parent.name == "checkpoints" else parent


def about(
    model: ModelConfig,
    train: TrainConfig,
    history: list[dict[str, float]],
    steps: int = 0,
    data: DataNotes | None = None,
) -> dict[str, Any]:
    """What a checkpoint says of itself; `steps` are those done of the epoch after the history's."""
    return {
        "model": model.as_dict(),
        "train": train.as_dict(),
        "history": history,
        "steps": steps,
        "versions": package_versions(*(["norse"] if model.neuron == "norse" else [])),
        **(data.as_dict() if data is not None else {}),
    }


def package_versions(*more: str) -> dict[str, str]:
    """Versions of Python and of the packages, and `more`, that decide what a run computes."""
    packages = ("torch", "snntorch", "lightning", "numpy", "spikingmoe", *more)
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def load_run(path: str | Path) -> Run:
    """Load a run's folder (its newest valid checkpoint), one checkpoint file, or a bundled one.

    Args:
        path: a name of `bundled_names()` is taken as such where no folder of that name holds a run.

    Raises:
        FileError: nothing there, or nothing valid.
    """
    path = Path(path)
    file = newest_valid(path) if path.is_dir() else path if path.exists() else None
    file = file or bundled_file(path)
    if file is None and not path.exists():
        raise FileError(
            f"{path}: no such run; give the folder that `spikingmoe train --out` wrote, or a bundled "
            f"checkpoint (there are: {', '.join(bundled_names()) or 'none'})"
        )
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
            epoch=len(notes["history"]),
            history=list(notes["history"]),
            versions=dict(notes["versions"]),
            steps=int(notes.get("steps", 0)),  # earlier checkpoints were made at epochs' ends only
            data_notes=data_notes(notes, num_classes=config.num_classes),
        )
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise FileError(f"{file}: holds another kind of model ({reason})") from None
