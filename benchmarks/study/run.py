"""One run of a study: train a point with a seed, or go on from its checkpoint, and measure it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from benchmarks.agreement import with_defaults
from benchmarks.epoch_clock import SECONDS, EpochClock, say_epochs
from benchmarks.locks import claim
from benchmarks.study.measure import measure
from benchmarks.study.points import Point
from benchmarks.study.record import StudyRecord, read_record
from benchmarks.study.settings import StudySettings
from spikingmoe.cli.equal_synops import Search, equal_synops_twin
from spikingmoe.cli.metrics import file_digest
from spikingmoe.cli.twins import DENSE_SYNOPS
from spikingmoe.config import ModelConfig, TrainConfig
from spikingmoe.data.image_data import ImageData
from spikingmoe.train.checkpoint import Run, load_run
from spikingmoe.train.fit import train
from spikingmoe.train.module import TrainingError

Say = Callable[[str], None]


def run_name(point: Point, seed: int) -> str:
    """Of a run's folder and lock."""
    return f"{point.name}-seed{seed}"


def run_folder(out: Path, point: Point, seed: int) -> Path:
    """Where a run is kept."""
    return out / "runs" / run_name(point, seed)


def finished(settings: StudySettings, point: Point, seed: int, out: Path) -> StudyRecord | None:
    """The record of a run that is trained and measured; None if it is not yet.

    Raises:
        ValueError: the record is damaged, or of another recipe.
    """
    folder = run_folder(out, point, seed)
    record = read_record(folder)
    if record is None:
        return None
    recipe = json.loads(json.dumps(settings.train_for(seed).as_dict()))
    if (record.point, record.seed, with_defaults(record.train, TrainConfig())) != (
        point,
        seed,
        recipe,
    ):
        raise ValueError(f"{folder}: was trained with other settings; use another --out")
    return record


def do_run(
    settings: StudySettings, point: Point, seed: int, data: ImageData, out: Path, say: Say
) -> StudyRecord:
    """Train and measure a run, whose lock this process holds; a finished one is taken as it is."""
    if (record := finished(settings, point, seed, out)) is not None:
        return record
    folder = run_folder(out, point, seed)
    recipe = settings.train_for(seed)
    common = {"point": point, "seed": seed, "train": json.loads(json.dumps(recipe.as_dict()))}
    search: Search | None = None
    config = point.config(settings.base)
    try:
        if point.model == DENSE_SYNOPS:
            mixture = _mixture_of(settings, point, seed, data, out, say)
            run, search = equal_synops_twin(
                mixture,
                recipe,
                data,
                folder,
                lambda twin, where: _train(settings, point, twin, seed, data, where, say),
            )
        else:
            run = _train(settings, point, config, seed, data, folder, say)
    except TrainingError as error:
        record = StudyRecord(**common, model=config.as_dict(), failure=str(error))  # type: ignore[arg-type]
    else:
        say(f"{run_name(point, seed)}: measuring")
        found, refusal = measure(run, data, settings.axes.bits, settings.costs, settings.images)
        record = StudyRecord(
            **common,  # type: ignore[arg-type]
            model=json.loads(json.dumps(run.model_config.as_dict())),
            checkpoint=file_digest(run.path),
            epochs=run.epoch,
            parameters=sum(p.numel() for p in run.model.parameters() if p.ndim),
            measured=found,
            test_images=len(data.test),
            validation_images=len(data.validation),
            counted_images=settings.images,
            refusal=refusal,
            search=None if search is None else asdict(search) | {"reached": search.reached},
            train_seconds=EpochClock(run.folder / SECONDS).total(recipe.epochs),
        )
    record.write(folder)
    return record


def _mixture_of(
    settings: StudySettings, point: Point, seed: int, data: ImageData, out: Path, say: Say
) -> Run:
    """The trained mixture that a twin is measured against; waits for who trains it just now."""
    with claim(out, run_name(point.mixture, seed), wait=True):
        record = do_run(settings, point.mixture, seed, data, out, say)
    if record.failure:
        raise TrainingError(f"its mixture failed ({record.failure})")
    return load_run(run_folder(out, point.mixture, seed))


def _train(
    settings: StudySettings,
    point: Point,
    config: ModelConfig,
    seed: int,
    data: ImageData,
    folder: Path,
    say: Say,
) -> Run:
    width = f" width {config.mlp_width}" if point.model == DENSE_SYNOPS else ""
    report = say_epochs(f"{run_name(point, seed)}{width}", folder, say)
    steps = data.in_steps(config.time_steps)
    return train(config, settings.train_for(seed), steps, folder, resume=True, report=report)
