"""Files that tell how a training went: a CSV table, TensorBoard events, a picture of the curves."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Checkpoint

from spikingmoe.train.checkpoint import write_bytes, write_text
from spikingmoe.train.curves import draw_curves
from spikingmoe.train.module import TrainingModule
from spikingmoe.train.record import STEP_COLUMNS

SPEED = "images_per_second"
FIRST = ("epoch", "step", "loss", "train_accuracy", "validation_accuracy", "learning_rate", SPEED)
PICTURE_S = 60.0  # between two pictures of a run that goes on
NO_TENSORBOARD = (
    "no TensorBoard log: pip install 'spikingmoe[tensorboard]' (the CSV log has the same)"
)

Row = dict[str, float]


class Logs(Checkpoint):
    """Writes RUN/logs/metrics.csv, RUN/logs/events.* and RUN/curves.png.

    The table is written whole each time, from what the checkpoint holds too: a resumed run neither
    loses nor repeats a row. Only the speeds of earlier epochs are read back from the old table.
    (A `Checkpoint`, because Lightning calls those after the module, whose record this needs.)
    """

    def __init__(self, run: Path, notice: Callable[[str], None] | None) -> None:
        self.run, self.notice = run, notice
        self.table = run / "logs" / "metrics.csv"
        self._speeds: dict[int, float] = {}
        self._epoch_began, self._images = time.monotonic(), 0
        self._drawn_at = time.monotonic()
        self._events: Any = None
        self._step_rows = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        if not trainer.is_global_zero:
            return
        if pl_module.history:
            self._speeds = read_speeds(self.table)
        self._events = open_events(self.run / "logs", trainer.global_step)
        if self._events is None and self.notice is not None:
            self.notice(NO_TENSORBOARD)
        self._step_rows = len(pl_module.record.steps)
        self._epoch_began = time.monotonic()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._epoch_began, self._images = time.monotonic(), 0

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        assert isinstance(pl_module, TrainingModule)
        self._images += pl_module.last_total
        if batch_idx + 1 == trainer.num_training_batches:  # before the validation
            seconds = max(1e-9, time.monotonic() - self._epoch_began)
            self._speeds[trainer.current_epoch] = self._images / seconds
        rows = pl_module.record.steps
        if self._events is not None:
            for epoch, step, loss, rate in rows[self._step_rows :]:
                at = int(epoch) * int(trainer.num_training_batches) + int(step)
                self._events.add_scalar("step/loss", loss, at)
                self._events.add_scalar("step/learning_rate", rate, at)
        self._step_rows = len(rows)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        if not trainer.is_global_zero:
            return
        rows = table_rows(pl_module, self._speeds)
        write_text(self.table, table_text(rows))
        if self._events is not None:
            last = [row for row in rows if "train_accuracy" in row][-1]
            for name, value in last.items():
                if name not in ("epoch", "step"):
                    self._events.add_scalar(name, value, trainer.global_step)
            self._events.flush()
        if time.monotonic() - self._drawn_at > PICTURE_S:
            self._draw(pl_module)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, TrainingModule)
        if trainer.is_global_zero:
            self._draw(pl_module)

    def _draw(self, module: TrainingModule) -> None:
        write_bytes(self.run / "curves.png", draw_curves(module.history))
        self._drawn_at = time.monotonic()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        if self._events is not None:
            self._events.close()
            self._events = None


def table_rows(module: TrainingModule, speeds: dict[int, float]) -> list[Row]:
    """The rows of the table: of steps as they come, and one at the end of each epoch."""
    steps: list[Row] = [dict(zip(STEP_COLUMNS, row, strict=True)) for row in module.record.steps]
    epochs: list[Row] = []
    for number, record in enumerate(module.history):
        activity = module.record.activity[number] if number < len(module.record.activity) else {}
        speed = {SPEED: speeds[number]} if number in speeds else {}
        epochs.append({"step": float(module.steps_per_epoch), **record, **speed, **activity})
    return sorted([*steps, *epochs], key=lambda row: (row["epoch"], row["step"]))


def table_text(rows: list[Row]) -> str:
    """Rows as CSV; what a row lacks stays empty."""
    more = {name: None for row in rows for name in row if name not in FIRST}
    text = io.StringIO()
    table = csv.DictWriter(text, [*FIRST, *more], restval="", lineterminator="\n")
    table.writeheader()
    for row in rows:
        whole = {name: int(row[name]) for name in ("epoch", "step")}
        table.writerow({**{n: f"{v:.6g}" for n, v in row.items()}, **whole})
    return text.getvalue()


def read_speeds(table: Path) -> dict[int, float]:
    """{epoch: images per second} of a table that an earlier part of a run wrote; {} without one."""
    try:
        with table.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row.get(SPEED)]
        return {int(row["epoch"]): float(row[SPEED]) for row in rows}
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # a figure that nothing depends on


def open_events(folder: Path, step: int) -> Any:
    """TensorBoard's writer, which forgets what was logged beyond `step`; None if it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)
