"""From records to rows: one per point, means over seeds with intervals, compared by seed."""

from __future__ import annotations

from benchmarks.study_record import FLOAT, Measured, StudyRecord, precision
from benchmarks.study_settings import StudySettings


def main_measured(record: StudyRecord, settings: StudySettings) -> Measured:
    """A record at the precision of the picture: the first of `bits`; float where there is none."""
    wanted = precision(settings.axes.bits[0]) if settings.axes.bits else FLOAT
    for name in (wanted, *record.measured):
        if name in record.measured:
            return record.measured[name]
    raise ValueError(f"{record.point.name}, seed {record.seed}: has no figures")
