"""The study's picture: accuracy against estimated energy per image, with intervals over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.intervals import Interval
from benchmarks.study.rows import Row, pareto_front

#: Okabe and Ito's colours, and a marker of its own for each kind, so that none needs the colour.
LOOK = {
    "moe": ("o", "#0072B2", "mixture"),
    "dense": ("s", "#000000", "dense spiking"),
    "dense_params": ("D", "#555555", "dense spiking, equal parameters"),
    "dense_synops": ("^", "#888888", "dense spiking, equal operations"),
    "quantised_relu": ("X", "#D55E00", "quantised ReLU"),
    "relu": ("*", "#CC79A7", "ReLU (float)"),
}


def draw(rows: Sequence[Row], table: str, title: str, path: Path) -> None:
    """Write the picture: one mark per row with a price under `table`, the Pareto front as steps.

    Bars are 95 % t-intervals over seeds on both axes; what has no price under the table is a dotted
    line at its accuracy.

    Raises:
        ValueError: no row has a price under the table yet.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    priced = [row for row in rows if table in row.energy_pj]
    if not priced:
        raise ValueError(f"plot: no finished run has a price under '{table}' yet")
    figure = Figure(figsize=(10, 6.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    named: set[str] = set()
    for row in priced:
        marker, colour, label = LOOK[row.point.model]
        x, y = row.energy_pj[table], row.test
        axes.errorbar(
            x.mean / 1000,
            100 * y.mean,
            xerr=_bars(x, 1 / 1000),
            yerr=_bars(y, 100),
            fmt=marker,
            color=colour,
            markersize=10 if marker == "*" else 7,
            markerfacecolor=colour if row.point.is_mixture else "white",
            capsize=2,
            lw=0.8,
            label=None if label in named else label,
        )
        named.add(label)
        axes.annotate(
            short_name(row),
            (x.mean / 1000, 100 * y.mean),
            xytext=(6, 5),
            textcoords="offset points",
            fontsize=7,
            color=colour,
        )
    for row in rows:
        if table not in row.energy_pj:
            _, colour, label = LOOK[row.point.model]
            axes.axhline(
                100 * row.test.mean, color=colour, ls=":", lw=1, label=f"{label}: no price here"
            )
    front = pareto_front(priced, table)
    axes.step(
        [row.energy_pj[table].mean / 1000 for row in front],
        [100 * row.test.mean for row in front],
        where="post",
        color="#009E73",
        lw=1,
        ls="--",
        label="Pareto front of the means",
        zorder=0,
    )
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.xaxis.set_minor_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axes.set_xlabel(f"estimated energy per image, nJ ({table}; simulated counts, not measured)")
    axes.set_ylabel("test accuracy, %")
    means = [100 * row.test.mean for row in rows]
    reach = max(1.0, max(means) - min(means))
    axes.set_ylim(min(means) - 0.5 * reach, min(100.0, max(means) + 0.4 * reach))
    axes.grid(alpha=0.25, lw=0.5, which="both")
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=140)


def short_name(row: Row) -> str:
    """What tells a mark from others of its kind."""
    point = row.point
    words = [f"T{point.time_steps}"]
    if point.is_mixture:
        words += [f"E{point.experts}", f"K{point.top_k}"]
        words += [] if point.routing == "top_k" else [point.routing]
    words += [] if point.attention == "qk" else [point.attention]
    words += [row.precision] if row.precision != "8 bits" else []
    return " ".join(words) + f" (n={len(row.seeds)})"


def _bars(interval: Interval, scale: float) -> list[list[float]] | None:
    if interval.low is None or interval.high is None:
        return None
    return [
        [scale * (interval.mean - interval.low)],
        [scale * (interval.high - interval.mean)],
    ]
