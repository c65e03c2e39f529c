"""What the routing benchmark keeps of one trained model: a JSON file in the run's folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np

from hardware.files import write_json

FILE = "record.json"


@dataclass(frozen=True, kw_only=True)
class Synops:
    """Synaptic operations per test image, by part of the network.

    Attributes:
        experts: what reaches the experts' neurons (and those of dense MLPs), gated or not.
        graded: of all, those of graded messages: multiply-accumulates, the rest are accumulates.
    """

    total: float
    experts: float
    router: float
    prompt: float
    rest: float
    graded: float


@dataclass(frozen=True, kw_only=True)
class Record:
    """One variant with one seed, trained and measured.

    Attributes:
        model, train: its configurations. checkpoint: SHA-256 of the checkpoint that was measured.
        validation_accuracy: of the last epoch. Settings are chosen by this one.
        test_accuracy, test_right: which test images it got right, as hexadecimal digits of bits.
        active_parameters: without the parameters of experts behind closed gates, as counted on the
            test images over the steps at which any gate of the mixture was open.
        load_entropy: of the experts' loads over log E, mean over the mixtures; 1 is even.
        dead_experts, experts: experts that no test token chose, of all in all mixtures.
        open_experts: open gates per token (shared experts left out), mean over mixtures and steps.
        synops: None where the model cannot be lowered; `refusal` says why.
        synops_images: test images that the operations were counted on.
        train_seconds: wall time of all epochs, also of those before an interruption.
        failure: why training ended early; all figures are None then.
    """

    variant: str
    seed: int
    model: dict[str, object]
    train: dict[str, object]
    checkpoint: str | None = None
    epochs: int = 0
    validation_accuracy: float | None = None
    test_accuracy: float | None = None
    test_right: str | None = None
    test_images: int = 0
    parameters: int | None = None
    active_parameters: float | None = None
    load_entropy: float | None = None
    dead_experts: int | None = None
    experts: int = 0
    open_experts: float | None = None
    synops: Synops | None = None
    refusal: str | None = None
    energy_nj: float | None = None
    synops_images: int = 0
    train_seconds: float | None = None
    failure: str | None = None

    @property
    def right(self) -> np.ndarray:
        """(images,) booleans: the test images it got right."""
        if self.test_right is None:
            raise ValueError(f"{self.variant}, seed {self.seed}: has no test answers")
        packed = np.frombuffer(bytes.fromhex(self.test_right), dtype=np.uint8)
        return np.unpackbits(packed, count=self.test_images).astype(bool)

    def write(self, folder: Path) -> None:
        """Keep it in the run's folder."""
        write_json(folder / FILE, asdict(self))


def pack_right(right: np.ndarray) -> str:
    """Booleans as hexadecimal digits; `Record.right` reads them back."""
    return np.packbits(right).tobytes().hex()


def read_record(folder: Path) -> Record | None:
    """The record of a run; None if there is none.

    Raises:
        ValueError: for a file that is no record.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text())
        if set(values) != {f.name for f in fields(Record)}:
            raise ValueError("other fields")
        synops = values.pop("synops")
        return Record(**values, synops=Synops(**synops) if synops else None)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path}: is no record of this benchmark ({error}); delete it, and the run is measured anew"
        ) from None
