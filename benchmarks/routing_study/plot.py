"""The routing benchmark's picture: accuracy against operations, and every comparison at equal ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.intervals import Comparison, Interval
from benchmarks.routing_study.answer import EQUAL_SYNOPS, Row
from benchmarks.routing_study.variants import FAMILIES

#: Okabe and Ito's colours, told apart by colour-blind eyes too; the dense twins are black.
COLOURS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6D31")
COLOUR_OF = dict(zip(FAMILIES, COLOURS, strict=True))


def draw(rows: Sequence[Row], title: str, path: Path) -> None:
    """Write the picture.

    Left: test accuracy against synaptic operations, means over seeds with 95 % t-intervals; the
    dense twins joined by a line, their interval as a band. A number is the variant's of the right
    side. Right: difference to the dense twins at equal synaptic operations; bars as on the left.

    Raises:
        ValueError: no row has synaptic operations.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    shown = sorted((r for r in rows if r.synops is not None), key=_place)
    if not shown:
        raise ValueError("plot: no finished run has synaptic operations yet")
    height = max(5.0, 0.24 * len(shown) + 1.6)
    figure = Figure(figsize=(13, height), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
    figure.suptitle(title, fontsize=11)
    _scatter(left, shown)
    _forest(right, shown)
    figure.legend(fontsize=8, ncols=len(FAMILIES), loc="outside lower center", frameon=False)
    _number_points(left, shown)
    figure.savefig(path, dpi=140)


def _scatter(axes, shown: Sequence[Row]) -> None:
    dense = sorted((r for r in shown if r.is_dense), key=_synops)
    if dense:
        xs = [_synops(r) for r in dense]
        ends = np.array([_ends(r.test) for r in dense]) * 100
        axes.plot(xs, [100 * r.test.mean for r in dense], color="black", lw=1.2, zorder=1)
        axes.fill_between(xs, ends[:, 0], ends[:, 1], color="black", alpha=0.1, lw=0, zorder=0)
    for row in shown:
        low, high = _ends(row.test)
        y = 100 * row.test.mean
        axes.errorbar(
            _synops(row),
            y,
            yerr=[[y - 100 * low], [100 * high - y]],
            fmt="s" if row.is_dense else "o",
            ms=5,
            lw=0.8,
            color=COLOUR_OF[row.variant.family],
            alpha=0.9,
        )
    axes.set_xscale("log")
    axes.set_xlabel("synaptic operations per image (thousands, measured, logarithmic)")
    axes.set_ylabel("test accuracy, %")
    axes.grid(alpha=0.25, which="both", lw=0.5)
    _plain_ticks(axes)
    _limit(axes, shown)
    for family in FAMILIES:
        if any(r.variant.family == family for r in shown):
            mark = "s" if family == "dense" else "o"
            axes.plot([], [], mark, color=COLOUR_OF[family], label=family)


def _forest(axes, shown: Sequence[Row]) -> None:
    labels = []
    for place, row in enumerate(shown):
        labels.append(f"{row.name}  {place + 1}")
        found = row.comparisons.get(EQUAL_SYNOPS)
        if isinstance(found, Comparison):
            colour, over = COLOUR_OF[row.variant.family], found.over_seeds
            low, high = (100 * end for end in _ends(over))
            told = found.verdict in ("better", "worse")
            axes.plot([low, high], [place, place], color=colour, lw=1.4)
            axes.plot(
                100 * over.mean, place, "o", ms=5, color=colour, mfc=colour if told else "white"
            )
        else:
            text = "dense twin" if row.is_dense else found or "not compared"
            axes.text(0.99, place, text, transform=axes.get_yaxis_transform(), fontsize=7,
                      ha="right", va="center", color="#666666")  # fmt: skip
    axes.axvline(0, color="black", lw=0.8)
    axes.set_yticks(range(len(shown)), labels, fontsize=8)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.grid(alpha=0.25, axis="x", lw=0.5)
    axes.set_xlabel(
        "test accuracy less that of the dense twins at equal operations, points\n"
        "(95 % interval over seeds; filled: told apart from 0 over seeds and over images)",
        fontsize=8,
    )


def _number_points(axes, shown: Sequence[Row]) -> None:
    """Put each number where it covers no point and no other number, with a line where it is far."""
    from matplotlib.patheffects import withStroke

    figure = axes.figure
    figure.draw_without_rendering()
    points = [axes.transData.transform((_synops(r), 100 * r.test.mean)) for r in shown]
    bars = [_along(axes, row) for row in shown]
    lines = np.concatenate(bars) if bars else np.zeros((0, 2))
    taken: list[tuple[float, float]] = []
    per_point = figure.dpi / 72  # pixels
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False) + np.pi / 8
    box = axes.get_window_extent()
    for index, (row, point) in enumerate(zip(shown, points, strict=True)):
        best, cost = point, np.inf
        for radius in (9, 13, 18, 24, 31, 39, 48):
            for angle in angles:
                place = point + radius * per_point * np.array([np.cos(angle), np.sin(angle)])
                own = radius * 0.02 + _crowding(place, points, taken, lines, per_point)
                own += 0 if box.contains(*place) else 100
                if own < cost:
                    best, cost = place, own
        taken.append((float(best[0]), float(best[1])))
        colour = COLOUR_OF[row.variant.family]
        offset = (best - point) / per_point
        axes.annotate(
            str(index + 1),
            (_synops(row), 100 * row.test.mean),
            xytext=tuple(offset),
            textcoords="offset points",
            fontsize=7,
            color=colour,
            ha="center",
            va="center",
            path_effects=[withStroke(linewidth=1.8, foreground="white")],
            arrowprops=(
                {"arrowstyle": "-", "lw": 0.4, "color": colour, "shrinkA": 3, "shrinkB": 2}
                if np.hypot(*offset) > 10
                else None
            ),
        )


def _along(axes, row: Row) -> np.ndarray:
    """Pixels along a row's interval, every few of them."""
    ends = axes.transData.transform([(_synops(row), 100 * end) for end in _ends(row.test)])
    steps = int(abs(ends[1, 1] - ends[0, 1]) / 4) + 1
    return np.linspace(ends[0], ends[1], steps)


def _crowding(place, points, taken, lines, per_point: float) -> float:
    """How much a number at `place` would cover: points, numbers and bars nearer than it is wide."""
    cost = 0.0
    for others, wide, high, weight in (
        (points, 7.5, 6.5, 10.0),
        (taken, 11.0, 8.5, 10.0),
        (lines, 6.0, 4.0, 0.15),
    ):
        if len(others):
            dx, dy = (np.abs(np.asarray(others) - place) / per_point).T
            cover = np.maximum(0.0, 1 - dx / wide) * np.maximum(0.0, 1 - dy / high)
            cost += weight * float(cover.sum())
    return cost


def _limit(axes, shown: Sequence[Row]) -> None:
    """Show all means; an interval of two seeds may reach far beyond, and is cut."""
    means = np.array([100 * r.test.mean for r in shown])
    ends = np.array([_ends(r.test) for r in shown]) * 100
    reach = 1.5 * max(float(np.ptp(means)), 1.0)
    low = max(float(ends.min()), float(means.min()) - reach)
    high = min(float(ends.max()), float(means.max()) + reach, 100.0)
    margin = 0.05 * max(high - low, 1.0)
    axes.set_ylim(low - margin, high + margin)


def _plain_ticks(axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8), numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _synops(row: Row) -> float:
    assert row.synops is not None
    return row.synops.mean / 1000


def _place(row: Row) -> tuple[float, float]:
    """Sort key: dense twins by their operations, then mixtures by their lead, then the others."""
    found = row.comparisons.get(EQUAL_SYNOPS)
    if row.is_dense:
        return 0, _synops(row)
    return (1, -found.over_seeds.mean) if isinstance(found, Comparison) else (2, _synops(row))


def _ends(interval: Interval) -> tuple[float, float]:
    """The interval, or its mean twice where one value allows none."""
    if interval.low is None or interval.high is None:
        return interval.mean, interval.mean
    return interval.low, interval.high
