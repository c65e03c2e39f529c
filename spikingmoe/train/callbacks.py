"""What happens beside the training loop: checkpoints at each epoch's end, progress."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback, Checkpoint, RichProgressBar

from spikingmoe.config import ModelConfig
from spikingmoe.train.checkpoint import ABOUT, KEPT, about, checkpoints
from spikingmoe.train.module import TrainingModule


class EpochCheckpoint(Checkpoint):
    """Saves after every epoch and keeps the last two checkpoints."""

    def __init__(self, run: Path, config: ModelConfig) -> None:
        self.run, self.config = run, config

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        assert isinstance(pl_module, TrainingModule)
        checkpoint[ABOUT] = about(self.config, pl_module.config, pl_module.history)

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        assert isinstance(pl_module, TrainingModule)
        pl_module.history = list(checkpoint[ABOUT]["history"])

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        name = f"epoch-{trainer.current_epoch + 1:04d}.safetensors"
        trainer.save_checkpoint(self.run / "checkpoints" / name)
        for old in checkpoints(self.run)[KEPT:]:
            old.unlink(missing_ok=True)


class EpochReport(Callback):
    """Calls `report(record, epochs)` with the record of each epoch that has ended."""

    def __init__(self, report: Callable[[dict[str, float], int], None], epochs: int) -> None:
        self.report, self.epochs = report, epochs

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._tell(pl_module)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._tell(pl_module)

    def _tell(self, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        if pl_module.history:
            self.report(pl_module.history[-1], self.epochs)


def progress_bar() -> RichProgressBar:
    """Lightning's bar for terminals, wiped when done."""
    return RichProgressBar(leave=False)
