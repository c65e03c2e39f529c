"""Pictures of a reading, as PNG: load, classes and regions per expert, sureness and change."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from spikingmoe.analysis.measures import Information
from spikingmoe.analysis.reading import DEAD_SHARE, LinkReading, MixtureReading
from spikingmoe.report.style import expert_colour

Extent = tuple[float, float, float, float]
DPI = 110
SMALL, MIDDLE = 8, 10  # points
UNKNOWN_COLOUR = "#dddddd"  # of a cell about which nothing was counted
MOST_COLUMNS = 3  # of panels
TILES = 8  # maps in a row
MOST_NUMBERS = 120  # cells that still have room for a number


def png_bytes(figure: Figure) -> bytes:
    """The figure as a PNG; the same bytes for the same picture."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, inches, that needs no display."""
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def load_png(reading: MixtureReading) -> bytes:
    """Bars of each router's load, the even share dashed."""
    experts = max(len(link.load) for link in reading.links)
    figure, panels = _panels(reading.links, 1.0 + max(1.2, 0.22 * experts), "Load of the experts")
    for axes, link in zip(panels, reading.links, strict=True):
        names = np.arange(len(link.load))
        even, most = 1 / len(link.load), max(float(link.load.max()), 1 / len(link.load))
        axes.barh(names, link.load, color=[expert_colour(e) for e in names], height=0.75)
        axes.axvline(even, color="#333", linestyle="--", linewidth=1)
        axes.set_xlim(0, 1.22 * most)
        for e, share in enumerate(link.load):
            words = "dead" if e in link.dead_experts else f"{100 * share:.1f} %"
            axes.text(1.2 * most, e, words, ha="right", va="center", fontsize=SMALL)
        axes.set_yticks(names, [str(e) for e in names], fontsize=SMALL)
        axes.set_ylim(len(link.load) - 0.4, -0.6)
        _plain(axes, f"{link.name}\nentropy {link.load_entropy:.2f}, {link.mean_open:.2f} open")
        axes.set_xticks([])
        axes.set_ylabel("expert", fontsize=SMALL)
        axes.set_xlabel(f"share of all choices (dashed: even, {100 * even:.1f} %)", fontsize=SMALL)
    _note(figure, reading, f"Dead: load below {100 * DEAD_SHARE:g} % of the even share.")
    return png_bytes(figure)


def class_png(reading: MixtureReading, classes: Sequence[str]) -> bytes:
    """Heat maps P(expert | class), one per router, each row sums to 1."""
    height = 1.3 + max(1.6, min(0.23 * len(classes), 14))
    figure, panels = _panels(reading.links, height, "Which expert each class goes to")
    top = max(float(np.nanmax(link.class_shares, initial=0.0)) for link in reading.links)
    for axes, link in zip(panels, reading.links, strict=True):
        image = _heat(axes, link.class_shares, top)
        if link.class_shares.size <= MOST_NUMBERS:
            _numbers(axes, link.class_shares, top)
        step = max(1, len(classes) // 50)
        axes.set_yticks(range(0, len(classes), step), classes[::step], fontsize=SMALL)
        _expert_ticks(axes, link.class_shares.shape[1])
        _plain(axes, f"{link.name}\n{information_words(link.by_class)}")
    figure.colorbar(image, ax=panels, shrink=0.8, aspect=35, label="P(expert | class)")
    _note(figure, reading, "Chance: the same images with their labels dealt anew.")
    return png_bytes(figure)


def region_png(reading: MixtureReading) -> bytes:
    """Maps P(expert | token) over the image: a panel per router, a tile per expert."""
    experts = max(len(link.load) for link in reading.links)
    columns = min(experts, TILES)
    tiles = math.ceil(experts / columns)
    figure = new_figure(2.2 + 1.25 * columns, 0.8 + (0.3 + 1.4 * tiles) * len(reading.links))
    panels = figure.subplots(len(reading.links), 1, squeeze=False)[:, 0]
    for axes, link in zip(panels, reading.links, strict=True):
        top = max(float(np.nanmax(link.region_shares, initial=0.0)), 1e-9)
        for e, shown in enumerate(link.region_shares):
            y, x = divmod(e, columns)
            place = (1.1 * x, 1.1 * x + 1, 1.3 * y + 1, 1.3 * y)
            image = _heat(axes, shown, top, place)
            axes.text(1.1 * x + 0.5, 1.3 * y - 0.04, f"expert {e}", ha="center", fontsize=SMALL)
        axes.set_xlim(-0.02, 1.1 * columns - 0.08)
        axes.set_ylim(1.3 * tiles - 0.28, -0.25)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_facecolor("white")
        axes.spines[:].set_visible(False)
        axes.set_ylabel(_stacked(link), fontsize=SMALL)
        bar = figure.colorbar(image, ax=axes, shrink=0.8, pad=0.01, aspect=18 * tiles)
        bar.ax.tick_params(labelsize=SMALL)
    figure.suptitle("Which expert each place of the image goes to: P(expert | token)", fontsize=12)
    _note(figure, reading, "Chance: each image's map rolled at random.")
    return png_bytes(figure)


def _stacked(link: LinkReading) -> str:
    known = link.by_region
    return f"{link.name}\n{known.bits:.3f} bit, chance {known.chance_bits:.3f}\np = {known.p_value:.2f}"


def steps_png(reading: MixtureReading) -> bytes:
    """Over the time steps: how undecided the scores are, how many gates open, how many change."""
    figure = new_figure(11, 3.9)
    panels = figure.subplots(1, 3)
    titles = ("entropy of the scores (0 sure, 1 blind)", "open gates per token",
              "share of tokens whose experts change")  # fmt: skip
    for index, link in enumerate(reading.links):
        steps = np.arange(len(link.entropy_per_step))
        style = {"color": expert_colour(index), "marker": "o", "markersize": 4, "label": link.name}
        panels[0].plot(steps, link.entropy_per_step, **style)
        panels[1].plot(steps, link.open_per_step, **style)
        panels[2].plot(steps[1:], link.gate_changes, **style)
    last = len(reading.links[0].entropy_per_step) - 1
    for axes, title in zip(panels, titles, strict=True):
        _plain(axes, title)
        axes.set_xlabel("time step", fontsize=SMALL)
        axes.set_xticks(range(0, last + 1, max(1, (last + 1) // 8)))
        axes.set_xlim(-0.3, last + 0.3)
        axes.tick_params(labelsize=SMALL)
        axes.grid(color="#eee")
    panels[0].set_ylim(-0.03, 1.03)
    panels[1].set_ylim(bottom=0)
    panels[2].set_ylim(-0.03, 1.03)
    if all(np.isnan(link.gate_changes).all() for link in reading.links):
        panels[2].text(0.5, 0.5, "no token has open gates\nat two steps in a row", ha="center",
                       va="center", transform=panels[2].transAxes, fontsize=SMALL)  # fmt: skip
    names, labels = panels[0].get_legend_handles_labels()
    figure.legend(names, labels, loc="outside lower center", fontsize=SMALL,
                  ncols=min(4, len(labels)), frameon=False)  # fmt: skip
    return png_bytes(figure)


def information_words(known: Information) -> str:
    """`0.31 bit, chance 0.02 (p = 0.01)`."""
    return f"{known.bits:.3f} bit, chance {known.chance_bits:.3f} (p = {known.p_value:.2f})"


def _panels(links: Sequence[LinkReading], height: float, title: str) -> tuple[Figure, list[Axes]]:
    columns = min(MOST_COLUMNS, len(links))
    rows = math.ceil(len(links) / columns)
    figure = new_figure(1.0 + 3.9 * columns, 0.7 + height * rows)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(links) :]:
        axes.set_axis_off()
    figure.suptitle(title, fontsize=12)
    return figure, list(grid.flat[: len(links)])


def _heat(axes: Axes, values: np.ndarray, top: float, place: Extent | None = None) -> AxesImage:
    colours = colormaps["viridis"].with_extremes(bad=UNKNOWN_COLOUR)
    return axes.imshow(
        values, cmap=colours, vmin=0, vmax=top, interpolation="nearest", extent=place,
        aspect="auto" if place is None else "equal",
    )  # fmt: skip


def _numbers(axes: Axes, values: np.ndarray, top: float) -> None:
    for (y, x), value in np.ndenumerate(values):
        if not np.isnan(value):
            colour = "#111" if value > 0.6 * top else "white"
            axes.text(
                x, y, f"{100 * value:.0f}", ha="center", va="center", fontsize=7, color=colour
            )


def _expert_ticks(axes: Axes, experts: int) -> None:
    step = 1 if experts <= 16 else 4
    axes.set_xticks(range(0, experts, step), [str(e) for e in range(0, experts, step)])
    axes.tick_params(axis="x", labelsize=SMALL)
    axes.set_xlabel("expert", fontsize=SMALL)


def _plain(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=MIDDLE)
    axes.spines[["top", "right"]].set_visible(False)


def _note(figure: Figure, reading: MixtureReading, words: str) -> None:
    figure.supxlabel(f"{reading.samples:,} images. {words}", fontsize=SMALL, color="#555")
