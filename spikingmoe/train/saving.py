"""Checkpoints while training: at each epoch's end, every few minutes, and when a signal says stop."""

from __future__ import annotations

import math
import sys
import time
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from spikingmoe.config import ModelConfig
from spikingmoe.data.data_notes import DataNotes
from spikingmoe.train.checkpoint import ABOUT, about, checkpoint_name, remove_old
from spikingmoe.train.devices import largest_over_devices
from spikingmoe.train.module import TrainingModule
from spikingmoe.train.stopping import StopRequest

LONG_VALIDATION_S = 1
SAVE_BY_TIME = 1  # less than any signal's number


class Saving(Checkpoint):
    """Saves whole steps only, and keeps the last two checkpoints.

    A checkpoint holds all that the next step depends on: weights, optimiser, schedule, averaged
    weights, generators, epoch and step, and the sums of the epoch so far. (Lightning calls a
    `Checkpoint` after all other callbacks.)

    Args:
        save_minutes: between two checkpoints within an epoch; 0: none there.
    """

    def __init__(
        self,
        run: Path,
        config: ModelConfig,
        stop: StopRequest,
        save_minutes: float,
        data: DataNotes | None = None,
    ) -> None:
        self.run, self.config, self.stop, self.data = run, config, stop, data
        self.seconds = 60 * save_minutes
        self._saved_at = time.monotonic()
        self._steps = 0
        self._validation_s = LONG_VALIDATION_S + 1  # not known before the first
        self._validating_since = 0.0

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        assert isinstance(pl_module, TrainingModule)
        checkpoint[ABOUT] = about(
            self.config, pl_module.config, pl_module.history, self._steps, self.data
        )

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        assert isinstance(pl_module, TrainingModule)
        pl_module.history = list(checkpoint[ABOUT]["history"])

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._saved_at = time.monotonic()
        self.stop.open()  # not before: Lightning takes SIGTERM for itself first

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        left = int(trainer.num_training_batches) - batch_idx - 1
        if left <= 0:
            return  # the end of the epoch saves it, with its validation
        wish = self.stop.signal
        if not wish and self.seconds and time.monotonic() - self._saved_at > self.seconds:
            wish = SAVE_BY_TIME
        if not wish and left == 1 and self.seconds and self._validation_s > LONG_VALIDATION_S:
            wish = SAVE_BY_TIME  # a signal that comes while it runs must not cost the epoch
        wish = largest_over_devices(wish, pl_module.device)
        if wish:
            self._save(trainer, pl_module, trainer.current_epoch, batch_idx + 1)
        if wish > SAVE_BY_TIME:
            self.stop.obey(wish)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validating_since = time.monotonic()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        seconds = time.monotonic() - self._validating_since
        self._validation_s = largest_over_devices(math.ceil(seconds), pl_module.device)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._save(trainer, pl_module, trainer.current_epoch + 1, 0)
        wish = largest_over_devices(self.stop.signal, pl_module.device)
        if wish > SAVE_BY_TIME:
            self.stop.obey(wish)

    def _save(
        self, trainer: L.Trainer, pl_module: L.LightningModule, epochs: int, steps: int
    ) -> None:
        assert isinstance(pl_module, TrainingModule)
        pl_module.health.check(pl_module.model)
        self._steps = steps
        trainer.save_checkpoint(self.run / "checkpoints" / checkpoint_name(epochs, steps))
        if trainer.is_global_zero:
            remove_old(self.run, checkpoint_name(epochs, steps))
        self._saved_at = time.monotonic()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        wish = self.stop.signal
        self.stop.close()
        if wish and sys.exc_info()[0] is None:  # it came after the last step was kept
            self.stop.obey(wish)
