"""Train a model on a data set, resumably."""

from __future__ import annotations

import logging
import signal
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import lightning as L
import torch

from spikingmoe.config import ModelConfig, RunOptions, TrainConfig
from spikingmoe.data.augment import check_augmentation
from spikingmoe.data.data_notes import DataNotes
from spikingmoe.data.fit import check_shapes
from spikingmoe.data.image_data import ImageData, Split
from spikingmoe.model import ModelOutput, SpikingTransformer
from spikingmoe.train.averaging import WeightAverage
from spikingmoe.train.checkpoint import (
    ArchiveIO,
    Run,
    checkpoints,
    load_run,
    make_run_folder,
    newest_valid,
)
from spikingmoe.train.device_data import DeviceSplit
from spikingmoe.train.devices import Place, check_devices, fast_matrix_products, trainer_options
from spikingmoe.train.loader import EpochBatches, index_loader
from spikingmoe.train.logs import Logs
from spikingmoe.train.module import TrainingModule
from spikingmoe.train.reporting import EpochLine, Position, Reporting
from spikingmoe.train.saving import Saving
from spikingmoe.train.stopping import StopRequest

EVALUATION_BATCH = 256


@dataclass(frozen=True)
class Watch:
    """Who is told how training goes.

    Attributes:
        epoch_line: gets the record of each epoch that has ended, and the number of epochs.
        position: gets where training is, every `every_s` seconds.
        notice: gets a line that matters once.
        on_reuse: gets the run if it is complete already and nothing is trained.
    """

    epoch_line: EpochLine | None = None
    position: Callable[[Position], None] | None = None
    every_s: float = 60.0
    notice: Callable[[str], None] | None = None
    on_reuse: Callable[[Run], None] | None = None


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
    samples = training_samples(settings, data)
    device = check_devices(options, settings)
    start = _starting_point(config, settings, out, resume=resume)
    if start is not None and start.epoch >= settings.epochs:
        if watch.on_reuse is not None:
            watch.on_reuse(start)
        return start
    make_run_folder(out)
    _fit(config, settings, data, samples, out, start, options, watch, Place(device))
    return load_run(out)


def _fit(
    config: ModelConfig,
    settings: TrainConfig,
    data: ImageData,
    samples: Split,
    out: Path,
    start: Run | None,
    options: RunOptions,
    watch: Watch,
    place: Place,
) -> None:
    """Train in this process, on one device."""
    _quiet_lightning()
    L.seed_everything(settings.seed, verbose=False)
    model = SpikingTransformer(config)
    model.input_limit.fill_(data.input_limit)
    share = {"rank": place.rank, "world": place.world}
    batches = EpochBatches(len(samples), settings.batch_size, settings.seed, shuffle=True, **share)
    if start is not None:
        batches.resume_at(start.epoch, start.steps)
    module = TrainingModule(model, settings, data, len(batches), samples)
    callbacks: list[L.Callback] = []
    if settings.ema_decay:
        callbacks.append(WeightAverage(settings.ema_decay))
    if options.logs:
        callbacks.append(Logs(out, watch.notice))
    callbacks.append(Saving(out, config, StopRequest(), options.save_minutes, DataNotes.of(data)))
    callbacks.append(Reporting(watch.epoch_line, watch.position, every_s=watch.every_s))
    trainer = L.Trainer(
        max_epochs=settings.epochs,
        logger=False,
        enable_checkpointing=True,
        enable_model_summary=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
        gradient_clip_val=settings.gradient_clip or None,
        callbacks=callbacks,
        plugins=[ArchiveIO()],
        **trainer_options(place, settings),
    )
    validation = None
    if not settings.train_on_validation:
        held_out = EpochBatches(len(data.validation), EVALUATION_BATCH, 0, shuffle=False, **share)
        validation = index_loader(held_out)
    try:
        with fast_matrix_products(place.device):
            trainer.fit(
                module,
                index_loader(batches, options.workers),
                validation,
                ckpt_path=start.path if start else None,
                weights_only=False,
            )
    except SystemExit as stop:  # what Lightning makes of an interrupt
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise stop.__context__ from None
        raise


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


def _quiet_lightning() -> None:
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")


@torch.inference_mode()
def evaluate(
    model: SpikingTransformer, split: Split, device: torch.device | None = None
) -> tuple[float, float, list[ModelOutput]]:
    """(accuracy, seconds, outputs per batch) of the model in evaluation mode, in float32.

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
    correct, outputs = torch.zeros((), dtype=torch.int64, device=device), []
    for index in torch.arange(len(split), device=device).split(EVALUATION_BATCH):
        images, labels = samples.batch(index)
        out = model(images)
        correct += (out.logits.argmax(1) == labels).sum()
        outputs.append(out)
    return int(correct) / len(split), time.perf_counter() - started, outputs
