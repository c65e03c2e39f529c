"""The study's picture: accuracy against estimated energy per image, with intervals over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.error_axis import error, name_ticks, show_accuracy
from benchmarks.intervals import Interval
from benchmarks.study.rows import Row, pareto_front

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation
    from matplotlib.transforms import Bbox

#: Okabe and Ito's colours, and a marker of its own for each kind, so that none needs the colour.
LOOK = {
    "moe": ("o", "#0072B2", "mixture"),
    "dense": ("s", "#000000", "dense spiking"),
    "dense_params": ("D", "#555555", "dense spiking, equal parameters"),
    "dense_synops": ("^", "#888888", "dense spiking, equal operations"),
    "quantised_relu": ("X", "#D55E00", "quantised ReLU"),
    "relu": ("*", "#CC79A7", "ReLU (float)"),
}

#: Places of a mark's name, in points, the best first.
OFFSETS = tuple(
    (side * right, up)
    for right, ups in ((7, (5, -11, 16, -22)), (14, (28, -34)), (22, (42, -48)))
    for up in ups
    for side in (1, -1)
)


def draw(rows: Sequence[Row], table: str, title: str, path: Path) -> None:
    """Write the picture: one mark per row with a price under `table`, the Pareto front as steps.

    Bars are 95 % t-intervals over seeds on both axes, cut where they leave the frame; what has no price
    under the table is a dotted line at its accuracy. A name tells the number of seeds where others have more.

    Raises:
        ValueError: no row has a price under the table yet.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

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
            error(y.mean),
            xerr=_bars(x, 1 / 1000),
            yerr=error_bars(y),
            fmt=marker,
            color=colour,
            markersize=10 if marker == "*" else 7,
            markerfacecolor=colour if row.point.is_mixture else "white",
            capsize=2,
            lw=0.8,
            label=None if label in named else label,
        )
        named.add(label)
    for row in rows:
        if table not in row.energy_pj:
            _, colour, label = LOOK[row.point.model]
            axes.axhline(
                error(row.test.mean), color=colour, ls=":", lw=1, label=f"{label}: no price here"
            )
    front = pareto_front(priced, table)
    axes.step(
        [row.energy_pj[table].mean / 1000 for row in front],
        [error(row.test.mean) for row in front],
        where="post",
        color="#009E73",
        lw=1,
        ls="--",
        label="Pareto front of the means",
        zorder=0,
    )
    axes.set_xscale("log")
    name_ticks(axes.xaxis)
    axes.set_xlabel(f"estimated energy per image, nJ ({table}; simulated counts, not measured)")
    show_accuracy(axes, [error(row.test.mean) for row in rows])
    axes.grid(alpha=0.25, lw=0.5, which="both")
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=8, loc="lower left")
    name_marks(axes, priced, table)
    figure.savefig(path, dpi=140)


def error_bars(accuracy: Interval) -> list[list[float]] | None:
    """How far the interval reaches below and above, in errors."""
    if accuracy.low is None or accuracy.high is None:
        return None
    middle = error(accuracy.mean)
    return [[middle - error(accuracy.high)], [error(accuracy.low) - middle]]


def name_marks(axes: Axes, rows: Sequence[Row], table: str) -> list[Annotation]:
    """Write each mark's name where it covers the fewest other marks and names."""
    from matplotlib.transforms import Bbox

    figure = axes.figure
    figure.canvas.draw()  # settles the layout, so that places in pixels are known
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    places = {id(r): (r.energy_pj[table].mean / 1000, error(r.test.mean)) for r in rows}
    marks = [axes.transData.transform(place) for place in places.values()]
    taken = [Bbox.from_extents(x - 5, y - 5, x + 5, y + 5) for x, y in marks]
    most = max(len(row.seeds) for row in rows)
    names: list[Annotation] = []
    for row in sorted(rows, key=lambda r: r.energy_pj[table].mean):
        name = short_name(row) + ("" if len(row.seeds) == most else f" (n={len(row.seeds)})")
        text = axes.annotate(
            name,
            places[id(row)],
            xytext=OFFSETS[0],
            textcoords="offset points",
            fontsize=7,
            color=LOOK[row.point.model][1],
        )
        found: list[tuple[int, int, Bbox]] = []
        for number, offset in enumerate(OFFSETS):
            _put(text, offset)
            box = text.get_window_extent(renderer)
            found.append((box.count_overlaps(taken), number, box))
        _, number, box = min(found, key=lambda one: one[:2])
        _put(text, OFFSETS[number])
        taken.append(box)
        names.append(text)
    return names


def _put(text: Annotation, offset: tuple[int, int]) -> None:
    text.set_position(offset)
    text.set_horizontalalignment(
        "left" if offset[0] > 0 else "right" if offset[0] < 0 else "center"
    )


def short_name(row: Row) -> str:
    """What tells a mark from others of its kind."""
    point = row.point
    words = [f"T{point.time_steps}"]
    if point.is_mixture:
        words += [f"E{point.experts}", f"K{point.top_k}"]
        words += [] if point.routing == "top_k" else [point.routing]
    words += [] if point.attention == "qk" else [point.attention]
    words += [row.precision] if row.precision != "8 bits" else []
    return " ".join(words)


def _bars(interval: Interval, scale: float) -> list[list[float]] | None:
    if interval.low is None or interval.high is None:
        return None
    return [
        [scale * (interval.mean - interval.low)],
        [scale * (interval.high - interval.mean)],
    ]
