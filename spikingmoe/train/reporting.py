"""What training tells whoever watches: a record per epoch, and how far it is in between."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback

from spikingmoe.train.checkpoint import Run
from spikingmoe.train.module import TrainingModule

EpochLine = Callable[[dict[str, float], int], None]


@dataclass(frozen=True)
class Position:
    """How far training is.

    Attributes:
        epoch, step: the present epoch, from 0, and the steps of it that are done.
        epochs, steps: of the whole run, and of an epoch.
        loss: mean over the epoch so far.
        images_per_second: since this process began to train, validation and checkpoints included.
        seconds_left: at that speed.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    images_per_second: float
    seconds_left: float


@dataclass(frozen=True)
class Watch:
    """Who is told how training goes.

    Attributes:
        epoch_line: gets the record of each epoch that has ended, and the number of epochs.
        position: gets where training is, every `every_s` seconds; each time waits for the device.
        notice: gets a line that matters once.
        on_reuse: gets the run if it is complete already and nothing is trained.
    """

    epoch_line: EpochLine | None = None
    position: Callable[[Position], None] | None = None
    every_s: float = 60.0
    notice: Callable[[str], None] | None = None
    on_reuse: Callable[[Run], None] | None = None

    def tell(self, what: str, arguments: tuple) -> None:
        """Call the attribute called `what`, if there is one."""
        called = {"epoch_line": self.epoch_line, "position": self.position, "notice": self.notice}
        if (listener := called[what]) is not None:
            listener(*arguments)


class Reporting(Callback):
    """Tells a watch of each epoch, and in between of the position."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self._began = self._told = time.monotonic()
        self._steps = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._began = self._told = time.monotonic()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        self._steps += 1
        now = time.monotonic()
        if self.watch.position is None or now - self._told < self.watch.every_s:
            return
        assert isinstance(pl_module, TrainingModule)
        self._told = now
        config, steps = pl_module.config, int(trainer.num_training_batches)
        per_step = (now - self._began) / self._steps
        left = (config.epochs - trainer.current_epoch) * steps - (batch_idx + 1)
        sums = pl_module.sums.values.tolist()
        self.watch.position(
            Position(
                epoch=trainer.current_epoch,
                epochs=config.epochs,
                step=batch_idx + 1,
                steps=steps,
                loss=sums[0] / max(1.0, sums[2]),
                images_per_second=config.batch_size / per_step,
                seconds_left=left * per_step,
            )
        )

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._tell(pl_module)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._tell(pl_module)

    def _tell(self, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        if self.watch.epoch_line is not None and pl_module.history:
            self.watch.epoch_line(pl_module.history[-1], pl_module.config.epochs)
