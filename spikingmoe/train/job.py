"""One process's part of a training: everything that Lightning's trainer is built from."""

from __future__ import annotations

import logging
import signal
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from torch.utils.data import DataLoader

from spikingmoe.config import ModelConfig, RunOptions, TrainConfig
from spikingmoe.data.data_notes import DataNotes
from spikingmoe.data.image_data import ImageData, Split
from spikingmoe.data.user_module import ModuleData, SeededBatches
from spikingmoe.model import SpikingTransformer
from spikingmoe.train.averaging import WeightAverage
from spikingmoe.train.checkpoint import ArchiveIO
from spikingmoe.train.devices import Place, fast_matrix_products, trainer_options
from spikingmoe.train.loader import EpochBatches, index_loader
from spikingmoe.train.logs import Logs
from spikingmoe.train.module import TrainingModule
from spikingmoe.train.processes import Tell
from spikingmoe.train.reporting import Reporting, Watch
from spikingmoe.train.saving import Saving
from spikingmoe.train.stopping import StopRequest

EVALUATION_BATCH = 256


@dataclass(frozen=True)
class Start:
    """The checkpoint that a training goes on from, and how far it had come."""

    path: Path
    epoch: int
    steps: int


@dataclass(frozen=True)
class Job:
    """A training that is checked and only has to be done; can be sent to another process.

    Attributes:
        samples: what is trained on.
        start: None begins anew.
        every_s: seconds between two positions that are told.
    """

    config: ModelConfig
    settings: TrainConfig
    data: ImageData
    samples: Split
    out: Path
    start: Start | None
    options: RunOptions
    every_s: float

    def __call__(self, place: Place, tell: Tell) -> None:
        """Do it on one of several devices; `tell` carries what the watch is told."""
        self.run(
            place,
            Watch(
                epoch_line=lambda record, epochs: tell("epoch_line", (record, epochs)),
                position=lambda position: tell("position", (position,)),
                notice=lambda text: tell("notice", (text,)),
                every_s=self.every_s,
            ),
        )

    def run(self, place: Place, watch: Watch) -> None:
        """Do it in this process."""
        _quiet_lightning()
        torch.set_num_threads(self.settings.threads)
        L.seed_everything(self.settings.seed, verbose=False)
        model = SpikingTransformer(self.config)
        model.input_limit.fill_(self.data.input_limit)
        loader, validation = self._training_loader(place), self._validation_loader(place)
        module = TrainingModule(model, self.settings, self.data, len(loader), self.samples)
        trainer = L.Trainer(
            max_epochs=self.settings.epochs,
            logger=False,
            enable_checkpointing=True,
            enable_model_summary=False,
            enable_progress_bar=False,
            num_sanity_val_steps=0,
            gradient_clip_val=self.settings.gradient_clip or None,
            callbacks=self._callbacks(watch),
            # Not the environment that Lightning finds, as a cluster's: the processes are our own.
            plugins=[ArchiveIO(), LightningEnvironment()],
            **trainer_options(place, self.settings),
        )
        if (trainer.world_size, trainer.global_rank) != (place.world, place.rank):
            raise RuntimeError(
                f"training: Lightning takes this process for {trainer.global_rank} of "
                f"{trainer.world_size}, it is {place.rank} of {place.world}"
            )
        path = self.start.path if self.start else None
        try:
            with fast_matrix_products(place.device):
                trainer.fit(module, loader, validation, ckpt_path=path, weights_only=False)
        except SystemExit as stop:  # what Lightning makes of an interrupt
            signal.signal(signal.SIGINT, signal.default_int_handler)
            if isinstance(stop.__context__, KeyboardInterrupt):
                raise stop.__context__ from None
            raise

    def _training_loader(self, place: Place) -> DataLoader[Any] | SeededBatches:
        if isinstance(self.data, ModuleData):
            own = self.data.batches(self.settings.seed)
            if self.start is not None:
                own.resume_at(self.start.epoch, self.start.steps)
            return own
        batches = self._batches(len(self.samples), self.settings.batch_size, place, shuffle=True)
        if self.start is not None:
            batches.resume_at(self.start.epoch, self.start.steps)
        return index_loader(batches, self.options.workers)

    def _validation_loader(self, place: Place) -> DataLoader[Any] | None:
        if self.settings.train_on_validation:
            return None
        return index_loader(
            self._batches(len(self.data.validation), EVALUATION_BATCH, place, shuffle=False)
        )

    def _batches(self, n: int, size: int, place: Place, *, shuffle: bool) -> EpochBatches:
        share = {"rank": place.rank, "world": place.world}
        return EpochBatches(n, size, self.settings.seed, shuffle=shuffle, **share)

    def _callbacks(self, watch: Watch) -> list[L.Callback]:
        """In the order in which they are called: a checkpoint holds what the others have done."""
        found: list[L.Callback] = []
        if self.settings.ema_decay:
            found.append(WeightAverage(self.settings.ema_decay))
        found.append(Reporting(watch))
        if self.options.logs:
            found.append(Logs(self.out, watch.notice))
        minutes, notes = self.options.save_minutes, DataNotes.of(self.data)
        found.append(Saving(self.out, self.config, StopRequest(), minutes, notes))
        return found


def _quiet_lightning() -> None:
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="lightning.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
