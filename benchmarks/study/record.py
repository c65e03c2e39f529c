"""What a study keeps of one trained model: a JSON file in the run's folder, and with its trial."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from benchmarks.study.points import Point, point_from
from hardware.files import write_json

FILE = "record.json"
FLOAT = "float"  # the precision of the trained network; others are "8 bits", "4 bits"


def precision(bits: int) -> str:
    """What weights of so many bits are called."""
    return f"{bits} bits"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One trained model at one precision.

    Attributes:
        validation, test: accuracy of the last epoch on the whole split.
        synops: synaptic operations per image (multiply-accumulates without spikes). accumulates: those
            that spikes trigger.
        energy_pj: per image by cost table: value, low, high; tables without a price are left out.
        event_pj: the part of `energy_pj` that is in proportion to the spikes, by table.
        first_layer_macs: without spikes, of the layer that reads the image.
    """

    validation: float
    test: float
    synops: float | None = None
    accumulates: float | None = None
    energy_pj: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    event_pj: dict[str, float] = field(default_factory=dict)
    first_layer_macs: float | None = None


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """One point with one seed, trained and measured.

    Attributes:
        model, train: its configurations. checkpoint: SHA-256 of the checkpoint that was measured.
        measured: by precision; a spiking model that cannot be lowered has "float" alone.
        refusal: why it cannot be lowered.
        search: for `dense_synops`, the widths tried and what was reached.
        train_seconds: wall time of all epochs.
        failure: why training ended early; there are no figures then.
    """

    point: Point
    seed: int
    model: dict[str, object]
    train: dict[str, object]
    checkpoint: str | None = None
    epochs: int = 0
    parameters: int | None = None
    measured: dict[str, Measured] = field(default_factory=dict)
    test_images: int = 0
    validation_images: int = 0
    counted_images: int = 0
    refusal: str | None = None
    search: dict[str, object] | None = None
    train_seconds: float | None = None
    failure: str | None = None

    def as_dict(self) -> dict[str, object]:
        """JSON values; `record_from` reads them back."""
        return json.loads(json.dumps(asdict(self)))

    def write(self, folder: Path) -> None:
        """Keep it in the run's folder."""
        write_json(folder / FILE, self.as_dict())


def record_from(values: dict[str, object]) -> StudyRecord:
    """A record from JSON values.

    Raises:
        ValueError: for values that are no record.
    """
    try:
        if set(values) != {f.name for f in fields(StudyRecord)}:
            raise ValueError("other fields")
        kept = dict(values)
        point, measured = kept.pop("point"), kept.pop("measured")
        found = {}
        for name, one in measured.items():  # type: ignore[union-attr]
            bands = {table: tuple(band) for table, band in one.pop("energy_pj").items()}
            found[name] = Measured(**one, energy_pj=bands)
        return StudyRecord(point=point_from(point), measured=found, **kept)  # type: ignore[arg-type]
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"is no record of this study ({error})") from None


def read_record(folder: Path) -> StudyRecord | None:
    """The record of a run; None if there is none.

    Raises:
        ValueError: for a file that is no record.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        return record_from(json.loads(path.read_text()))
    except ValueError as error:
        raise ValueError(f"{path}: {error}; delete it, and the run is measured anew") from None
