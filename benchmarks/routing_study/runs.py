"""Train and measure the runs of a routing experiment; several processes may share them."""

from __future__ import annotations

import statistics
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks.epoch_clock import SECONDS, EpochClock, epoch_words
from benchmarks.locks import claim
from benchmarks.routing_study.experiment import Experiment, Job, finished, run_folder
from benchmarks.routing_study.measures import (
    active_parameters,
    answer,
    expert_figures,
    measure_synops,
)
from benchmarks.routing_study.record import Record, pack_right
from benchmarks.routing_study.variants import VARIANTS
from spikingmoe.cli.metrics import file_digest
from spikingmoe.data.fit import check_shapes
from spikingmoe.data.image_data import ImageData
from spikingmoe.model import SpikingTransformer
from spikingmoe.train.checkpoint import Run
from spikingmoe.train.fit import train, training_samples
from spikingmoe.train.loader import make_loader
from spikingmoe.train.module import TrainingError

Say = Callable[[str], None]


@dataclass
class Progress:
    """Says how far the experiment is and how long this process will still need.

    Attributes:
        left: runs that nobody has finished, as far as this process knows.
    """

    say: Say
    total: int
    left: int
    run_seconds: list[float] = field(default_factory=list)

    def epoch(self, job: Job, line: str, run_left: float) -> None:
        """One line per epoch."""
        text = f"[{self.total - self.left + 1}/{self.total}] {job}: {line}, {_time(run_left)} left"
        mean = statistics.fmean(self.run_seconds) if self.run_seconds else None
        if mean is not None and self.left > 1:
            text += f"; all in about {_time(run_left + (self.left - 1) * mean)} by one process"
        self.say(text)


def work(
    experiment: Experiment, jobs: Sequence[Job], data: ImageData, out: Path, say: Say
) -> list[str]:
    """Train and measure every run that is not finished and not another process's.

    Returns:
        One line for each run that broke off by a mistake of ours (the others go on).

    Raises:
        ValueError: a finished run has other settings than this experiment.
    """
    open_jobs = [job for job in jobs if finished(out, job, experiment) is None]
    progress = Progress(say=say, total=len(jobs), left=len(open_jobs))
    if len(open_jobs) < len(jobs):
        say(f"{len(jobs) - len(open_jobs)} of {len(jobs)} runs are there already")
    broken = []
    for job in open_jobs:
        with claim(out, str(job)) as mine:
            if not mine:
                say(f"{job}: another process works on it")
            elif finished(out, job, experiment) is None:
                started = time.perf_counter()
                try:
                    _do(experiment, job, data, out, progress).write(run_folder(out, job))
                except Exception as error:
                    traceback.print_exc()
                    broken.append(f"{job}: {type(error).__name__}: {error}")
                    say(f"{broken[-1]}; going on with the others")
                progress.run_seconds.append(time.perf_counter() - started)
        progress.left -= 1
    return broken


def _do(experiment: Experiment, job: Job, data: ImageData, out: Path, progress: Progress) -> Record:
    variant = next(v for v in VARIANTS if v.name == job.variant)
    model, settings = experiment.configs(variant, job.seed)
    folder = run_folder(out, job)
    folder.mkdir(parents=True, exist_ok=True)
    clock = EpochClock(folder / SECONDS)

    def report(record: dict[str, float], epochs: int) -> None:
        epoch = int(record["epoch"]) + 1
        clock.tick(epoch)
        progress.epoch(job, epoch_words(record, epochs), (epochs - epoch) * clock.per_epoch)

    common = {"variant": job.variant, "seed": job.seed}
    common |= {"model": model.as_dict(), "train": settings.as_dict()}
    try:
        run = train(model, settings, data, folder, resume=True, report=report)
    except TrainingError as error:
        return Record(**common, failure=str(error))  # type: ignore[arg-type]
    return measure(run, data, experiment.synops_images, job, clock.total(settings.epochs))


def measure(run: Run, data: ImageData, synops_images: int, job: Job, seconds: float) -> Record:
    """Everything that the table says of one trained model."""
    answers = answer(run.model, data.test)
    synops, energy_nj, refusal = measure_synops(run, data.test.first(synops_images))
    return Record(
        variant=job.variant,
        seed=job.seed,
        model=run.model_config.as_dict(),
        train=run.train_config.as_dict(),
        checkpoint=file_digest(run.path),
        epochs=run.epoch,
        validation_accuracy=run.history[-1]["validation_accuracy"],
        test_accuracy=float(answers.right.mean()),
        test_right=pack_right(answers.right),
        test_images=len(answers.right),
        parameters=sum(p.numel() for p in run.model.parameters()),
        active_parameters=active_parameters(run.model, answers.open_share),
        **expert_figures(answers),  # type: ignore[arg-type]
        synops=synops,
        refusal=refusal,
        energy_nj=energy_nj,
        synops_images=synops_images,
        train_seconds=seconds,
    )


def check_all(experiment: Experiment, jobs: Sequence[Job], data: ImageData) -> None:
    """Fail before any training: data fit, and every variant takes one training step.

    Raises:
        ValueError: data, preset or a variant do not fit.
    """
    check_shapes(experiment.base, data)
    training_samples(experiment.settings, data)
    data.test.first(experiment.synops_images)
    for name in dict.fromkeys(job.variant for job in jobs):
        variant = next(v for v in VARIANTS if v.name == name)
        model = SpikingTransformer(experiment.configs(variant, 0)[0])
        images, labels = next(iter(make_loader(data.train.first(8), 8)))
        out = model(images)
        torch.nn.functional.cross_entropy(out.logits, labels).backward()
        model.adapt(out.routing, 0.0)


def _time(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
