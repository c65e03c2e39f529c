"""What all trials of a study share, written once into its folder; a later start must agree.

OUT/study.json            preset, recipe, axes, seeds, cost tables
OUT/journal.log           Optuna's journal of trials, unless --storage names a database
OUT/runs/POINT-seedN/     checkpoints, epochs.jsonl, record.json; of `dense_synops` a folder per width
OUT/locks/                held by the process that works on a run or a trial
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from benchmarks.agreement import check_same
from benchmarks.study.points import Axes, Point, check_distinct, factor_points, grid_points
from hardware.files import write_json
from spikingmoe.config import ModelConfig, TrainConfig, model_config, train_config

FILE = "study.json"
Kind = Literal["factors", "grid", "pareto"]


@dataclass(frozen=True, kw_only=True)
class StudySettings:
    """What all trials share.

    Attributes:
        kind: "factors" (one factor at a time), "grid" (all combinations) or "pareto" (a search for
            high accuracy at low energy).
        base, train: the preset and the recipe; each seed has its own.
        images: test images that operations are counted on.
        costs: cost tables; the first one is that of the picture and of a pareto study.
        trials: of a pareto study; 0 for the others.
    """

    kind: Kind
    base: ModelConfig
    train: TrainConfig
    axes: Axes
    seeds: tuple[int, ...]
    images: int
    costs: tuple[str, ...]
    trials: int

    def __post_init__(self) -> None:
        if not self.base.is_mixture:
            raise ValueError(f"preset '{self.base.preset}' has no mixture to study; use another")
        check_distinct("--seeds", self.seeds)
        for name, values in asdict(self.axes).items():
            check_distinct(f"--{name.replace('_', '-')}", values)
        for bits in self.axes.bits:
            if not 2 <= bits <= 8:
                raise ValueError(f"--bits {bits}: weights in fixed point have 2 to 8 bits")
        if self.images < 1:
            raise ValueError(f"--images {self.images} must be at least 1")
        if self.kind == "pareto" and self.trials < 1:
            raise ValueError(f"--trials {self.trials}: a pareto study needs at least 1")

    def train_for(self, seed: int) -> TrainConfig:
        """The recipe with this seed."""
        return replace(self.train, seed=seed)

    def points(self) -> list[Point]:
        """Every point of a study that knows them beforehand; none for "pareto"."""
        if self.kind == "pareto":
            return []
        return (factor_points if self.kind == "factors" else grid_points)(self.base, self.axes)

    def as_dict(self) -> dict[str, object]:
        """JSON values."""
        return json.loads(json.dumps(asdict(self)))


def load_settings(out: Path) -> StudySettings | None:
    """The study that a folder holds; None if it holds none.

    Raises:
        ValueError: for a file that is none, or one that this version cannot read.
    """
    path = out / FILE
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text())
        axes = {name: tuple(found) for name, found in values.pop("axes").items()}
        base, train = model_config(values.pop("base")), train_config(values.pop("train"))
        seeds, costs = tuple(values.pop("seeds")), tuple(values.pop("costs"))
        return StudySettings(
            base=base, train=train, axes=Axes(**axes), seeds=seeds, costs=costs, **values
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path}: is no study that this version reads ({error}); use another --out"
        ) from None


def agree(out: Path, settings: StudySettings) -> None:
    """Write the settings into their folder, or check that they are those that are there.

    Raises:
        ValueError: the folder holds a study with other settings; the message names them.
        FileError: the folder cannot be written.
    """
    there = load_settings(out)
    if there is None:
        write_json(out / FILE, settings.as_dict())
        return
    check_same(out, there.as_dict(), settings.as_dict(), "a study")
