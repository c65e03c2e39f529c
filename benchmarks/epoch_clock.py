"""Seconds per epoch of a run that may be interrupted, and a line now and then about how far it is."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

SECONDS = "epochs.jsonl"
LINE_EVERY_S = 10.0


class EpochClock:
    """Seconds per epoch, kept in a file so that an interruption does not lose them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.seconds: dict[int, float] = {}
        for line in path.read_text().splitlines() if path.exists() else []:
            with suppress(ValueError):  # the end of a line that a killed process began
                entry = json.loads(line)
                self.seconds[int(entry["epoch"])] = float(entry["seconds"])
        self.last = time.perf_counter()

    def tick(self, epoch: int) -> None:
        """An epoch has ended (one that an earlier process ended is told once more, and kept)."""
        now = time.perf_counter()
        if epoch not in self.seconds:
            self.seconds[epoch] = now - self.last
            with self.path.open("a") as file:
                file.write(
                    json.dumps({"epoch": epoch, "seconds": round(now - self.last, 3)}) + "\n"
                )
        self.last = now

    @property
    def per_epoch(self) -> float:
        """Mean seconds per epoch."""
        return statistics.fmean(self.seconds.values()) if self.seconds else 0.0

    def total(self, epochs: int) -> float:
        """Seconds of `epochs` epochs; those that were not kept count as the mean."""
        return self.per_epoch * epochs


def epoch_words(record: dict[str, float], epochs: int) -> str:
    """How an epoch that has ended went."""
    return (
        f"epoch {int(record['epoch']) + 1}/{epochs}, loss {record['loss']:.3f}, "
        f"validation {100 * record['validation_accuracy']:.2f} %"
    )


def say_epochs(
    name: str, folder: Path, say: Callable[[str], None]
) -> Callable[[dict[str, float], int], None]:
    """What `train` calls after each epoch: times it, and says every ten seconds how far `name` is.

    Args:
        folder: of the run, made if it is missing; its epochs are timed in a file there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    clock, said = EpochClock(folder / SECONDS), [0.0]

    def report(record: dict[str, float], epochs: int) -> None:
        epoch = int(record["epoch"]) + 1
        clock.tick(epoch)
        now = time.monotonic()
        if now - said[0] < LINE_EVERY_S and epoch < epochs:
            return
        said[0] = now
        left = (epochs - epoch) * clock.per_epoch
        say(f"{name}: {epoch_words(record, epochs)}, {left:.0f} s left")

    return report
