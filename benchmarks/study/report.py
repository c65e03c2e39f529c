"""Table, picture and JSON of a study, from the records that its trials hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.harness import PACKAGES, Report, print_table, versions
from benchmarks.intervals import Interval
from benchmarks.study.plot import draw
from benchmarks.study.record import StudyRecord
from benchmarks.study.rows import (
    Against,
    BreakEven,
    Row,
    against_twins,
    break_even,
    main_precision,
    rows_of,
)
from benchmarks.study.run import run_name
from benchmarks.study.settings import StudySettings
from benchmarks.study.storage import Trials
from hardware.files import write_json, write_text

Say = Callable[[str], None]
Cells = list[dict[str, str]]


def report(
    trials: Trials,
    settings: StudySettings,
    json_path: Path | None,
    plot_path: Path | None,
    say: Say,
) -> None:
    """Print the tables and write what was asked for.

    Raises:
        ValueError: no run has ended yet.
    """
    records = trials.records()
    rows = rows_of(records, settings)
    if not rows:
        raise ValueError(f"{trials.out}: holds no finished run yet")
    title = f"Energy against accuracy on {settings.train.data}, preset {settings.base.preset}"
    tables = [
        (title, row_cells(rows, settings)),
        (f"The preset's mixture against its twins ({_main(records, settings)})",
         against_cells(against_twins(records, settings), settings)),
        ("Spike rates at which a dense spiking network costs what its quantised twin does",
         break_even_cells(break_even(records, settings))),
    ]  # fmt: skip
    lines = notes(records, settings, missing(records, settings), trials.mistakes())
    for name, cells in tables:
        if cells:
            print_table(name, cells)
    for line in lines:
        say(line)
    if json_path is not None:
        write_json(json_path, as_json(rows, records, settings))
        write_text(json_path.with_suffix(".md"), markdown(tables, lines))
    if plot_path is not None:
        main = [row for row in rows if _is_main(row, settings)]
        seeds = ", ".join(map(str, settings.seeds))
        draw(
            main, settings.costs[0], f"{title}; seeds {seeds}, 95 % intervals over seeds", plot_path
        )


def _main(records: Sequence[StudyRecord], settings: StudySettings) -> str:
    some = [r for r in records if r.point.is_mixture and r.measured]
    return main_precision(some[0], settings) if some else "no mixture"


def _is_main(row: Row, settings: StudySettings) -> bool:
    wanted = f"{settings.axes.bits[0]} bits"
    return row.precision == wanted or row.point.model in ("relu", "quantised_relu")


def row_cells(rows: Sequence[Row], settings: StudySettings) -> Cells:
    """One line of texts per row."""
    return [
        {
            "model": row.point.model,
            "E": str(row.point.experts) if row.point.is_mixture else "",
            "K": str(row.point.top_k) if row.point.is_mixture else "",
            "routing": row.point.routing if row.point.is_mixture else "",
            "T": "" if row.point.model == "relu" else str(row.point.time_steps),
            "attention": row.point.attention,
            "precision": row.precision,
            "seeds": str(len(row.seeds)),
            "params": "" if row.parameters is None else f"{row.parameters:,.0f}",
            "validation %": _interval(row.validation, 100, 1),
            "test %": _interval(row.test, 100, 1),
            "synops k": "cannot be lowered" if row.refusal else _interval(row.synops, 1 / 1000, 0),
            **{f"{t} nJ": _interval(row.energy_pj.get(t), 1 / 1000, 1) for t in settings.costs},
        }
        for row in rows
    ]


def against_cells(found: Sequence[Against], settings: StudySettings) -> Cells:
    """The mixture against each twin."""
    return [
        {
            "twin": one.twin,
            "seeds": str(one.points.n),
            "test accuracy, points": _interval(one.points, 1, 2, sign=True),
            "synops": _interval(one.synops_ratio, 1, 2),
            **{t: _interval(one.energy_ratio.get(t), 1, 2) for t in settings.costs},
        }
        for one in found
    ]


def break_even_cells(found: Sequence[BreakEven]) -> Cells:
    """Rates per connection and image, and per step."""
    return [
        {
            "table": one.table,
            "T": str(one.time_steps),
            "twin's bits": str(one.bits),
            "seeds": str(one.rate.n),
            "spikes per connection": _interval(one.rate, 1, 3),
            "break-even": _interval(one.even, 1, 3),
            "break-even per step": _interval(one.even, 1 / one.time_steps, 3),
            "prices alone": _interval(one.prices, 1, 3),
            "energy, spiking / quantised": _interval(one.energy_ratio, 1, 2),
            "accuracy, points": _interval(one.points, 1, 2, sign=True),
        }
        for one in found
    ]


def _interval(found: Interval | None, scale: float, digits: int, *, sign: bool = False) -> str:
    """mean [low, high]; the mean alone where one seed allows no interval."""
    if found is None:
        return ""
    form = f"{'+' if sign else ''},.{digits}f"
    mean = format(scale * found.mean, form)
    if found.low is None or found.high is None:
        return mean
    return f"{mean} [{format(scale * found.low, form)}, {format(scale * found.high, form)}]"


def missing(records: Sequence[StudyRecord], settings: StudySettings) -> list[str]:
    """Runs that the study knows beforehand and that have no figures."""
    there = {run_name(r.point, r.seed) for r in records if r.failure is None}
    failed = {run_name(r.point, r.seed): r.failure for r in records if r.failure is not None}
    names = [run_name(point, seed) for seed in settings.seeds for point in settings.points()]
    return [f"{n} ({failed[n]})" if n in failed else n for n in names if n not in there]


def notes(
    records: Sequence[StudyRecord],
    settings: StudySettings,
    absent: Sequence[str],
    mistakes: Sequence[str],
) -> list[str]:
    """What one must know to read the tables, a sentence each."""
    some = next(r for r in records if r.failure is None)
    lines = [
        f"seeds {', '.join(map(str, settings.seeds))}; {settings.train.epochs} epochs, "
        f"{settings.train.train_samples or 'all'} training images; accuracy of the last epoch on "
        f"{some.validation_images} held-out and {some.test_images} test images; operations counted on the "
        f"first {settings.images} test images",
        "mean [95 % t-interval over seeds]; test images only give the final figure; energies are estimates "
        "from counted operations, nothing is measured on a chip",
        "8 bits, 4 bits: the spiking network in fixed point with calibrated weights (no tuning); the "
        "quantised twin has activations of ceil(log2(T + 1)) bits and weights rounded to 8 bits; synops of "
        "networks without spikes are multiply-accumulates",
        "the spiking networks pay for their residual stream (graded relays), the twins without spikes do not: "
        "their additions and the transport of the stream are not counted",
        "ratios: the mixture's figure over the twin's, paired by seed; below 1 the mixture is cheaper",
        "spikes per connection: accumulates per image over the multiply-accumulates of the quantised twin "
        "without its first layer; break-even: the rate at which both cost the same if graded messages and "
        "neuron updates stay as they are (below 0: never); prices alone: if nothing but spikes cost",
    ]
    for record in records:
        if record.search is not None:
            tried = ", ".join(f"{w}: {s:,.0f}" for w, s in record.search["tried"])  # type: ignore[attr-defined]
            lines.append(
                f"dense_synops, seed {record.seed}: target {record.search['target']:,.0f}, tried {tried}; "
                f"{'within' if record.search['reached'] else 'NOT within'} 5 % (in floating point, "
                f"{record.search['images']} held-out images)"
            )
    if absent:
        shown = ", ".join(absent[:12]) + (", ..." if len(absent) > 12 else "")
        lines.append(f"not finished ({len(absent)}): {shown}")
    lines += [f"broke off: {text}" for text in mistakes]
    return lines


def as_json(
    rows: Sequence[Row], records: Sequence[StudyRecord], settings: StudySettings
) -> dict[str, object]:
    """The JSON file: rows with their n, ratios, comparisons, settings, and every record."""
    result = Report(seeds=list(settings.seeds), versions=versions((*PACKAGES, "optuna")))
    for row in rows:
        result.add(n=len(row.seeds), name=row.point.name, **asdict(row))
    against = against_twins(records, settings)
    table = settings.costs[0]
    result.ratios = {
        f"vs_{one.twin}": 1 / one.energy_ratio[table].mean
        for one in against
        if table in one.energy_ratio
    }
    return result.as_dict() | {
        "ratios_are": f"energy of the twin over that of the mixture under {table}",
        "against": [asdict(one) for one in against],
        "break_even": [asdict(one) for one in break_even(records, settings)],
        "missing": missing(records, settings),
        "study": settings.as_dict(),
        "records": [record.as_dict() for record in records],
    }


def markdown(tables: Sequence[tuple[str, Cells]], lines: Sequence[str]) -> str:
    """The tables and notes as a page."""
    page: list[str] = []
    for level, (name, cells) in enumerate(tables):
        if not cells:
            continue
        columns = list(cells[0])
        page += [f"{'#' if level == 0 else '##'} {name}", ""]
        page.append(f"| {' | '.join(columns)} |")
        page.append(f"|{'|'.join('---' for _ in columns)}|")
        page += [f"| {' | '.join(line[c] for c in columns)} |" for line in cells]
        page.append("")
    page += [f"- {line}" for line in lines]
    return "\n".join(page) + "\n"
