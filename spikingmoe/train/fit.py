"""Train a model on a data set, resumably."""

from __future__ import annotations

import logging
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import lightning as L
import torch

from spikingmoe.config import ModelConfig, TrainConfig
from spikingmoe.data.image_data import ImageData, Split
from spikingmoe.model import ModelOutput, SpikingTransformer
from spikingmoe.train.callbacks import EpochCheckpoint, EpochReport, progress_bar
from spikingmoe.train.checkpoint import (
    ArchiveIO,
    Run,
    checkpoints,
    load_run,
    make_run_folder,
    newest_valid,
)
from spikingmoe.train.loader import EpochBatches, make_loader
from spikingmoe.train.module import TrainingModule

EVALUATION_BATCH = 256
EpochLine = Callable[[dict[str, float], int], None]


def train(
    config: ModelConfig,
    settings: TrainConfig,
    data: ImageData,
    out: Path,
    *,
    resume: bool = False,
    show_bar: bool = False,
    report: EpochLine | None = None,
    on_reuse: Callable[[Run], None] | None = None,
) -> Run:
    """Train and keep checkpoints in `out`; returns the run as it stands on disk.

    Args:
        resume: go on from the newest valid checkpoint in `out`, with the same settings.
        show_bar: a progress bar (for terminals); `report` gets a record per epoch otherwise.
        on_reuse: called with the run if it is complete already and nothing is trained.

    Raises:
        ValueError: data and model do not fit, or the run in `out` has other settings.
    """
    check_fit(config, data)
    samples = training_samples(settings, data)
    start = _starting_point(config, settings, out, resume=resume)
    if start is not None and start.epoch >= settings.epochs:
        if on_reuse is not None:
            on_reuse(start)
        return start
    make_run_folder(out)
    _quiet_lightning()
    L.seed_everything(settings.seed, verbose=False)
    model = SpikingTransformer(config)
    model.input_limit.fill_(data.input_limit)
    loader = make_loader(samples, settings.batch_size, seed=settings.seed, shuffle=True)
    if start is not None:  # Lightning iterates once before it tells the sampler its epoch
        assert isinstance(loader.sampler, EpochBatches)
        loader.sampler.set_epoch(start.epoch)
    module = TrainingModule(model, settings, data, len(loader))
    callbacks: list[L.Callback] = [EpochCheckpoint(out, config)]
    if show_bar:
        callbacks.append(progress_bar())
    elif report is not None:
        callbacks.append(EpochReport(report, settings.epochs))
    trainer = L.Trainer(
        max_epochs=settings.epochs,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=True,
        enable_model_summary=False,
        enable_progress_bar=show_bar,
        num_sanity_val_steps=0,
        gradient_clip_val=1.0,
        callbacks=callbacks,
        plugins=[ArchiveIO()],
    )
    validation = make_loader(data.validation, EVALUATION_BATCH)
    try:
        trainer.fit(module, loader, validation, ckpt_path=start.path if start else None)
    except SystemExit as stop:  # what Lightning makes of an interrupt
        signal.signal(signal.SIGINT, signal.default_int_handler)
        if isinstance(stop.__context__, KeyboardInterrupt):
            raise stop.__context__ from None
        raise
    return load_run(out)


def check_fit(config: ModelConfig, data: ImageData) -> None:
    """ValueError unless images and classes of the data are those of the model."""
    shape = (config.input_channels, config.image_size, config.image_size)
    if data.input_shape != shape:
        raise ValueError(
            f"data '{data.name}' has images {data.input_shape}; model '{config.preset}' takes {shape}"
        )
    if len(data.classes) != config.num_classes:
        raise ValueError(
            f"data '{data.name}' has {len(data.classes)} classes; "
            f"model '{config.preset}' has num_classes={config.num_classes}"
        )


def training_samples(settings: TrainConfig, data: ImageData) -> Split:
    """The training images that a recipe asks for; ValueError if there are fewer."""
    if settings.train_samples > len(data.train):
        raise ValueError(
            f"training: train_samples={settings.train_samples}; data '{data.name}' has "
            f"{len(data.train)} training images, use 1 to {len(data.train)}, or 0 for all"
        )
    return data.train.subset(settings.train_samples) if settings.train_samples else data.train


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


@torch.no_grad()
def evaluate(model: SpikingTransformer, split: Split) -> tuple[float, float, list[ModelOutput]]:
    """(accuracy, seconds, outputs per batch) of the model in evaluation mode."""
    model.eval()
    started = time.perf_counter()
    correct, outputs = 0, []
    for images, labels in make_loader(split, EVALUATION_BATCH):
        out = model(images)
        correct += int((out.logits.argmax(1) == labels).sum())
        outputs.append(out)
    return correct / len(split), time.perf_counter() - started, outputs
