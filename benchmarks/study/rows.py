"""From records to rows: one per point and precision, means over seeds with intervals, paired by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from benchmarks.intervals import Interval, t_interval
from benchmarks.study.points import SPIKING_TWINS, Point, base_point
from benchmarks.study.record import Measured, StudyRecord, precision
from benchmarks.study.settings import StudySettings

BySeed = Mapping[int, StudyRecord]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One point at one precision over its seeds.

    Attributes:
        validation, test: accuracy over seeds.
        synops: per image over seeds; None where nothing was counted.
        energy_pj: by table, the value over seeds. band_pj: means of the low and the high end.
    """

    point: Point
    precision: str
    seeds: tuple[int, ...]
    parameters: float | None
    validation: Interval
    test: Interval
    synops: Interval | None
    energy_pj: dict[str, Interval]
    band_pj: dict[str, tuple[float, float]]
    refusal: str | None


@dataclass(frozen=True, kw_only=True)
class Against:
    """The preset's mixture against one twin, paired by seed, at the precision of the picture.

    Attributes:
        points: test accuracy less that of the twin, percentage points.
        synops_ratio, energy_ratio: the mixture's over the twin's; energies by table.
    """

    twin: str
    points: Interval
    synops_ratio: Interval | None
    energy_ratio: dict[str, Interval]


@dataclass(frozen=True, kw_only=True)
class BreakEven:
    """A dense spiking network against its quantised twin of the same T, under one table.

    A connection is a weight of the quantised twin meeting an activation, once per image; the first
    layer, which reads the image, is left out. Spikes per connection and image are the accumulates over
    that number, as Dampfhoffer 2022 counts them.

    Attributes:
        rate: of the trained network. even: at which both cost the same, if what does not depend on spikes
            stays (graded messages, neuron updates); below 0 it never does. prices: the same by the mean
            price of a connection over the mean price of a spike's accumulate alone. Per step: over T.
        energy_ratio: the spiking network's over the quantised twin's.
        points: test accuracy less that of the quantised twin, percentage points.
    """

    time_steps: int
    bits: int
    table: str
    rate: Interval
    even: Interval
    prices: Interval
    energy_ratio: Interval
    points: Interval


def main_measured(record: StudyRecord, settings: StudySettings) -> Measured:
    """A record at the precision of the picture: the first of `bits`; another where there is none."""
    return record.measured[main_precision(record, settings)]


def main_precision(record: StudyRecord, settings: StudySettings) -> str:
    """Name of the precision of the picture.

    Raises:
        ValueError: for a record without figures.
    """
    wanted = precision(settings.axes.bits[0])
    for name in (wanted, *record.measured):
        if name in record.measured:
            return name
    raise ValueError(f"{record.point.name}, seed {record.seed}: has no figures")


def by_point(records: Sequence[StudyRecord]) -> dict[Point, dict[int, StudyRecord]]:
    """Records that have figures, by point and seed."""
    found: dict[Point, dict[int, StudyRecord]] = {}
    for record in sorted(records, key=lambda r: r.seed):
        if record.failure is None:
            found.setdefault(record.point, {})[record.seed] = record
    return found


def rows_of(records: Sequence[StudyRecord], settings: StudySettings) -> list[Row]:
    """Every point at every precision; mixtures first, the precision of the picture first."""
    rows = []
    points = by_point(records)
    for point in sorted(points, key=lambda p: (not p.is_mixture, p.name)):
        mine = points[point]
        some = next(iter(mine.values()))
        main = main_precision(some, settings)
        for name in dict.fromkeys([main, *some.measured]):
            seeds = {seed: r for seed, r in mine.items() if name in r.measured}
            rows.append(_row(point, name, seeds))
    return rows


def _row(point: Point, name: str, seeds: BySeed) -> Row:
    found = [record.measured[name] for record in seeds.values()]
    tables = [t for t in found[0].energy_pj if all(t in one.energy_pj for one in found)]
    synops = [one.synops for one in found if one.synops is not None]
    sizes = [r.parameters for r in seeds.values() if r.parameters is not None]
    return Row(
        point=point,
        precision=name,
        seeds=tuple(seeds),
        parameters=sum(sizes) / len(sizes) if sizes else None,
        validation=t_interval([one.validation for one in found]),
        test=t_interval([one.test for one in found]),
        synops=t_interval(synops) if synops else None,
        energy_pj={t: t_interval([one.energy_pj[t][0] for one in found]) for t in tables},
        band_pj={t: (_mean(found, t, 1), _mean(found, t, 2)) for t in tables},
        refusal=next(iter(seeds.values())).refusal,
    )


def _mean(found: Sequence[Measured], table: str, place: int) -> float:
    return sum(one.energy_pj[table][place] for one in found) / len(found)


def against_twins(records: Sequence[StudyRecord], settings: StudySettings) -> list[Against]:
    """The preset's own mixture against each of its twins that shares seeds with it."""
    points = by_point(records)
    base = base_point(settings.base)
    found = []
    for twin in settings.axes.twins:
        ours, theirs = points.get(base, {}), points.get(replace(base, model=twin), {})
        pairs = [(ours[s], theirs[s]) for s in ours if s in theirs]
        if not pairs:
            continue
        both = [(main_measured(a, settings), main_measured(b, settings)) for a, b in pairs]
        spiking = twin in SPIKING_TWINS and all(a.synops and b.synops for a, b in both)
        tables = [t for t in settings.costs if all(t in m.energy_pj for pair in both for m in pair)]
        found.append(
            Against(
                twin=twin,
                points=t_interval([100 * (a.test - b.test) for a, b in both]),
                synops_ratio=_ratios([(a.synops or 0, b.synops or 1) for a, b in both])
                if spiking
                else None,
                energy_ratio={
                    t: _ratios([(a.energy_pj[t][0], b.energy_pj[t][0]) for a, b in both])
                    for t in tables
                },
            )
        )
    return found


def _ratios(pairs: Sequence[tuple[float, float]]) -> Interval:
    return t_interval([a / b for a, b in pairs])


def break_even(records: Sequence[StudyRecord], settings: StudySettings) -> list[BreakEven]:
    """Dense spiking against quantised twins, by T and table; those that share seeds."""
    points, found = by_point(records), []
    for point, spiking in points.items():
        rivals = points.get(replace(point, model="quantised_relu"), {})
        shared = [seed for seed in spiking if seed in rivals]
        if point.model != "dense" or not shared:
            continue
        pairs = [
            (main_measured(spiking[s], settings), main_measured(rivals[s], settings))
            for s in shared
        ]
        bits = int(rivals[shared[0]].model["activation_bits"])  # type: ignore[call-overload]
        for table in settings.costs:
            if all(table in a.event_pj and table in b.energy_pj for a, b in pairs):
                each = [spike_rates(a, b, table) for a, b in pairs]
                found.append(
                    BreakEven(
                        time_steps=point.time_steps,
                        bits=bits,
                        table=table,
                        rate=t_interval([rate for rate, _, _ in each]),
                        even=t_interval([even for _, even, _ in each]),
                        prices=t_interval([prices for _, _, prices in each]),
                        energy_ratio=_ratios(
                            [(a.energy_pj[table][0], b.energy_pj[table][0]) for a, b in pairs]
                        ),
                        points=t_interval([100 * (a.test - b.test) for a, b in pairs]),
                    )
                )
    return sorted(found, key=lambda b: (settings.costs.index(b.table), b.time_steps))


def spike_rates(spiking: Measured, quantised: Measured, table: str) -> tuple[float, float, float]:
    """(rate, break-even rate, rate by prices alone) in spikes per connection and image.

    rate = accumulates / connections
    even = rate (E_quantised - E_fixed) / E_event,   E_fixed = E_spiking - E_event
    prices = (E_quantised / macs) / (E_event / accumulates)
    """
    assert spiking.accumulates is not None
    assert quantised.synops is not None
    connections = quantised.synops - (quantised.first_layer_macs or 0.0)
    total, event = spiking.energy_pj[table][0], spiking.event_pj[table]
    rival = quantised.energy_pj[table][0]
    rate = spiking.accumulates / connections
    even = rate * (rival - (total - event)) / event
    prices = (rival / quantised.synops) / (event / spiking.accumulates)
    return rate, even, prices


def pareto_front(rows: Sequence[Row], table: str) -> list[Row]:
    """Rows that no other one beats in both mean accuracy and mean energy, by rising energy."""
    priced = [row for row in rows if table in row.energy_pj]
    front: list[Row] = []
    for row in sorted(priced, key=lambda r: (r.energy_pj[table].mean, -r.test.mean)):
        if not front or row.test.mean > front[-1].test.mean:
            front.append(row)
    return front
