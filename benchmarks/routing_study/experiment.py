"""One experiment of the routing benchmark: what all its runs share, and its folder.

OUT/experiment.json             preset, recipe and data, written once; a later start must agree
OUT/runs/VARIANT-seedN/         checkpoints, epochs.jsonl (seconds), record.json
OUT/locks/VARIANT-seedN.lock    held by the process that works on that run
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from benchmarks.agreement import check_same, with_defaults
from benchmarks.routing_study.record import Record, read_record
from benchmarks.routing_study.variants import VARIANTS, Variant, same_as
from hardware.files import write_json
from spikingmoe.config import ModelConfig, TrainConfig, model_config, train_config

FILE = "experiment.json"


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What all runs share.

    Attributes:
        base, settings: the preset and the recipe that the variants change (each seed its own).
        data_dir: where the data was read from; may change.
        synops_images: test images that synaptic operations are counted on.
    """

    base: ModelConfig
    settings: TrainConfig
    synops_images: int
    data_dir: str | None = None

    def configs(self, variant: Variant, seed: int) -> tuple[ModelConfig, TrainConfig]:
        """Model and recipe of one run."""
        return variant.configs(self.base, replace(self.settings, seed=seed))

    def as_dict(self) -> dict[str, object]:
        """JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Job:
    """One variant with one seed: a run."""

    variant: str
    seed: int

    def __str__(self) -> str:
        return f"{self.variant}-seed{self.seed}"


def load_experiment(out: Path) -> Experiment | None:
    """The experiment that a folder holds; None if it holds none.

    Raises:
        ValueError: for a file that is none, or one that this version cannot read.
    """
    path = out / FILE
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text())
        return Experiment(
            base=model_config(values["base"]),
            settings=train_config(values["settings"]),
            synops_images=int(values["synops_images"]),
            data_dir=values["data_dir"],
        )
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path}: is no experiment that this version reads ({error}); use another --out"
        ) from None


def agree(out: Path, experiment: Experiment) -> None:
    """Write the experiment into its folder, or check that it is the one that is there.

    Raises:
        ValueError: the folder holds an experiment with other settings; the message names them.
        FileError: the folder cannot be written.
    """
    there = load_experiment(out)
    if there is None:
        write_json(out / FILE, experiment.as_dict())
        return
    check_same(out, _settings(there), _settings(experiment), "an experiment")


def _settings(experiment: Experiment) -> dict[str, object]:
    """All but the folder of the data, which may change."""
    return {n: value for n, value in experiment.as_dict().items() if n != "data_dir"}


def list_jobs(
    experiment: Experiment, variants: Sequence[Variant], seeds: Sequence[int]
) -> list[Job]:
    """Every run that the variants need, seed by seed; equal variants share theirs.

    Raises:
        ValueError: a variant is not allowed with this preset.
    """
    for variant in variants:
        experiment.configs(variant, seeds[0])
    run_of = same_as(experiment.base, experiment.settings)
    wanted = {run_of[v.name] for v in variants}
    return [Job(v.name, seed) for seed in seeds for v in VARIANTS if v.name in wanted]


def run_folder(out: Path, job: Job) -> Path:
    """Where a run is kept."""
    return out / "runs" / str(job)


def finished(out: Path, job: Job, experiment: Experiment) -> Record | None:
    """The record of a run that is trained and measured; None if it is not yet.

    Raises:
        ValueError: the record is damaged, or of other settings.
    """
    record = read_record(run_folder(out, job))
    if record is None:
        return None
    variant = next(v for v in VARIANTS if v.name == job.variant)
    model, train = experiment.configs(variant, job.seed)
    there = json.loads(json.dumps([model.as_dict(), train.as_dict()]))
    known = [with_defaults(record.model, ModelConfig()), with_defaults(record.train, TrainConfig())]
    if known != there:
        raise ValueError(
            f"{run_folder(out, job)}: was trained with other settings than variant "
            f"'{job.variant}' has now; use another --out, or delete this folder"
        )
    return record
