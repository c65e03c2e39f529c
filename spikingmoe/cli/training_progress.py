"""How a training is shown: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from spikingmoe.cli.console import console, say
from spikingmoe.train.checkpoint import Run
from spikingmoe.train.reporting import Position, Watch

LINE_S = 60.0  # at most this long without a line
BAR_S = 0.5
LINES = 8  # epochs' lines of a whole training, if they come faster than `LINE_S`


@contextmanager
def training_progress(title: str, epochs: int) -> Iterator[Watch]:
    """A watch for `train` that shows how far it is."""

    def reused(run: Run) -> None:
        say(f"{title}: trained before, {run.epoch} epochs")

    if not console.is_terminal:
        yield Lines(title, epochs).watch(reused)
        return
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[told]}", markup=False),
        console=console,
        transient=True,
    )
    with bar:
        task = bar.add_task(title, total=1.0, told="")

        def show(position: Position) -> None:
            share = (position.epoch + position.step / position.steps) / position.epochs
            bar.update(task, completed=share, told=position_text(position))

        def epoch_line(record: dict[str, float], epochs: int) -> None:
            bar.update(task, completed=(record["epoch"] + 1) / epochs)
            bar.console.print(f"{title}: {epoch_text(record, epochs)}", markup=False)

        yield Watch(
            epoch_line=epoch_line, position=show, every_s=BAR_S, notice=say, on_reuse=reused
        )


class Lines:
    """A line every few epochs, and at least one a minute."""

    def __init__(self, title: str, epochs: int) -> None:
        self.title, self.every = title, max(1, epochs // LINES)
        self.told = time.monotonic()

    def watch(self, reused) -> Watch:
        """What `train` calls."""
        return Watch(
            epoch_line=self._epoch,
            position=self._position,
            every_s=LINE_S,
            notice=say,
            on_reuse=reused,
        )

    def _epoch(self, record: dict[str, float], epochs: int) -> None:
        epoch, now = int(record["epoch"]) + 1, time.monotonic()
        if epoch % self.every == 0 or epoch == epochs or now - self.told > LINE_S / 2:
            self.told = now
            say(f"{self.title}: {epoch_text(record, epochs)}")

    def _position(self, position: Position) -> None:
        self.told = time.monotonic()
        say(f"{self.title}: {position_text(position)}")


def epoch_text(record: dict[str, float], epochs: int) -> str:
    """An epoch that has ended, in words."""
    text = f"epoch {int(record['epoch']) + 1}/{epochs}, loss {record['loss']:.3f}"
    if "validation_accuracy" in record:
        text += f", validation {100 * record['validation_accuracy']:.1f} %"
    else:
        text += f", training {100 * record['train_accuracy']:.1f} %"
    return f"{text}, {record['synops']:,.0f} synops" if "synops" in record else text


def position_text(position: Position) -> str:
    """Where training is, in words."""
    minutes, seconds = divmod(round(position.seconds_left), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"epoch {position.epoch + 1}/{position.epochs}, step {position.step}/{position.steps}, "
        f"loss {position.loss:.3f}, {position.images_per_second:,.0f} images/s, "
        f"{hours}:{minutes:02}:{seconds:02} left"
    )
