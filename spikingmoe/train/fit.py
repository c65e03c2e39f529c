"""Train a model on a data set, resumably."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from spikingmoe.config import ModelConfig, RunOptions, TrainConfig
from spikingmoe.data.augment import check_augmentation
from spikingmoe.data.fit import check_shapes
from spikingmoe.data.image_data import ImageData, Split
from spikingmoe.data.user_module import ModuleData
from spikingmoe.model import SpikingTransformer
from spikingmoe.train.checkpoint import (
    Run,
    alone_in_run,
    checkpoints,
    load_run,
    make_run_folder,
    newest_valid,
)
from spikingmoe.train.device_data import DeviceSplit
from spikingmoe.train.devices import Place, check_devices
from spikingmoe.train.job import EVALUATION_BATCH, Job, Start
from spikingmoe.train.processes import run_on_devices
from spikingmoe.train.reporting import EpochLine, Watch

__all__ = ["EVALUATION_BATCH", "evaluate", "train", "training_samples"]


def train(
    config: ModelConfig,
    settings: TrainConfig,
    data: ImageData,
    out: Path,
    *,
    resume: bool = False,
    options: RunOptions | None = None,
    report: EpochLine | None = None,
    watch: Watch | None = None,
) -> Run:
    """Train and keep checkpoints in `out`; returns the run as it stands on disk.

    Args:
        resume: go on from the newest valid checkpoint in `out`, with the same settings.
        options: device, number of devices, and how often it is saved; may differ from run to run.
        report: shorthand for a `watch` with this `epoch_line`.

    Raises:
        ValueError: data and model do not fit, or the run in `out` has other settings.
        TrainingError: the loss is no longer a number.
    """
    options, watch = options or RunOptions(), watch or Watch(epoch_line=report)
    check_shapes(config, data)
    check_augmentation(
        settings, channels=config.input_channels, is_events=data.time_steps is not None
    )
    if isinstance(data, ModuleData):
        check_user_module(settings, options, data)
    samples = training_samples(settings, data)
    device = check_devices(options, settings)
    start = _starting_point(config, settings, out, resume=resume)
    if start is not None and start.epoch >= settings.epochs:
        if watch.on_reuse is not None:
            watch.on_reuse(start)
        return start
    if options.devices > 1 and len(data.validation) < options.devices:
        raise ValueError(
            f"devices={options.devices} share {len(data.validation)} validation images; use fewer devices"
        )
    if settings.warmup_epochs >= settings.epochs and watch.notice is not None:
        watch.notice(
            f"warmup_epochs={settings.warmup_epochs} of {settings.epochs} epochs: the learning rate "
            f"rises throughout and never falls"
        )
    make_run_folder(out)
    begin = Start(start.path, start.epoch, start.steps) if start else None
    job = Job(config, settings, data, samples, out, begin, options, watch.every_s)
    with alone_in_run(out):
        if options.devices == 1:
            job.run(Place(device), watch)
        else:
            run_on_devices(job, device, options.devices, watch.tell)
    return load_run(out)


def check_user_module(settings: TrainConfig, options: RunOptions, data: ModuleData) -> None:
    """ValueError for settings that a user's own training batches cannot follow."""
    wrong = {
        "train_samples": (settings.train_samples, 0),
        "train_on_validation": (settings.train_on_validation, False),
        "batch_size": (settings.batch_size, data.batch_size),
        "devices": (options.devices, 1),
        "workers": (options.workers, 0),
    }
    for name, (asked, possible) in wrong.items():
        if asked != possible:
            raise ValueError(
                f"training: {name}={asked}, but data '{data.name}' makes its own batches; "
                f"use {name}={possible}"
            )


def training_samples(settings: TrainConfig, data: ImageData) -> Split:
    """The training images that a recipe asks for; ValueError if there are fewer."""
    samples = data.train
    if settings.train_on_validation:
        parts = (data.train, data.validation)
        samples = replace(
            data.train,
            stored=torch.cat([part.stored for part in parts]),
            labels=torch.cat([part.labels for part in parts]),
        )
    if settings.train_samples > len(samples):
        raise ValueError(
            f"training: train_samples={settings.train_samples}; data '{data.name}' has "
            f"{len(samples)} training images, use 1 to {len(samples)}, or 0 for all"
        )
    return samples.subset(settings.train_samples) if settings.train_samples else samples


def _starting_point(
    config: ModelConfig, settings: TrainConfig, out: Path, *, resume: bool
) -> Run | None:
    if not resume:
        if checkpoints(out):
            raise ValueError(f"{out}: holds a run already; use --resume, or another --out")
        return None
    newest = newest_valid(out)
    if newest is None:
        return None
    run = load_run(newest)
    if run.model_config != config or run.train_config != settings:
        raise ValueError(
            f"{out}: was trained with other settings ({_difference(run, config, settings)}); "
            f"resume with the same, or use another --out"
        )
    return run


def _difference(run: Run, config: ModelConfig, settings: TrainConfig) -> str:
    parts = []
    for old, new in ((run.model_config, config), (run.train_config, settings)):
        before, after = old.as_dict(), new.as_dict()
        parts += [f"{k}={before[k]!r}, now {after[k]!r}" for k in after if before[k] != after[k]]
    return "; ".join(parts[:3])


@torch.inference_mode()
def evaluate(
    model: SpikingTransformer, split: Split, device: torch.device | None = None
) -> tuple[float, float, list[Tensor]]:
    """(accuracy, seconds, choices per expert of each router) in evaluation mode, in float32.

    Args:
        device: where to compute; the model stays there. By default where it is.
    """
    if device is not None:
        model.to(device)
    device = next(model.parameters()).device
    model.eval()
    samples = DeviceSplit(split, split.normalisation, model.config.num_classes)
    samples.to(device)
    started = time.perf_counter()
    correct = torch.zeros((), dtype=torch.int64, device=device)
    choices: list[Tensor] = []
    for index in torch.arange(len(split)).split(EVALUATION_BATCH):
        images, labels = samples.batch(index)
        out = model(images)
        correct += (out.logits.argmax(1) == labels).sum()
        own = [info.gates.flatten(0, -2).sum(0, dtype=torch.float64) for info in out.routing]
        choices = [a + b for a, b in zip(choices, own, strict=True)] if choices else own
    return int(correct) / len(split), time.perf_counter() - started, [c.cpu() for c in choices]
