"""A picture of a mapping: which part of the network each core holds, and how full it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle

from spikingmoe.analysis.pictures import MIDDLE, SMALL, new_figure, png_bytes
from spikingmoe.report.style import part_colour

EMPTY = "#f1f2f4"
TILE = 0.94  # side of a drawn tile


def chip_png(values: Mapping[str, Any]) -> bytes:
    """Tiles of every chip with their cores, coloured by part; a core is as opaque as it is full.

    Args:
        values: a `MappingReport.as_dict()`.
    """
    cores = values["core_list"]
    slots: dict[tuple[int, int], list[Mapping[str, Any]]] = {}
    for core in cores:
        slots.setdefault(tuple(core["tile"]), []).append(core)
    per_row = math.ceil(math.sqrt(values["chips"]))
    chip_rows = math.ceil(values["chips"] / per_row)
    rows, columns = values["tiles"]
    width = min(16.0, 2.5 + 1.0 * columns * per_row)
    height = 1.6 + (width - 2.5) * rows * chip_rows / (columns * per_row)
    figure = new_figure(width, max(3.4, height))
    axes = figure.subplots()
    side = math.ceil(math.sqrt(values["cores_per_tile"]))
    for row in range(rows * chip_rows):
        for column in range(columns * per_row):
            if row // rows * per_row + column // columns < values["chips"]:
                _tile(axes, row, column, slots.get((row, column), []), side)
    for chip in range(values["chips"]):
        low, left = chip // per_row * rows, chip % per_row * columns
        axes.add_patch(
            Rectangle((left - 0.03, low - 0.03), columns, rows, fill=False, edgecolor="#333")
        )
    axes.set_xlim(-0.2, columns * per_row + 0.2)
    axes.set_ylim(rows * chip_rows + 0.2, -0.2)
    axes.set_aspect("equal")
    axes.axis("off")
    parts = list(dict.fromkeys(core["part"] for core in cores))
    handles = [Patch(color=part_colour(part), label=part) for part in sorted(parts)]
    figure.legend(handles=handles, loc="outside right center", fontsize=SMALL, frameon=False)
    axes.set_title(
        f"{len(cores)} cores on {values['chips']} x {values['chip']} (estimate); "
        f"{100 * values['utilisation']['neurons']['mean']:.0f} % of their neurons used",
        fontsize=MIDDLE,
    )
    return png_bytes(figure)


def _tile(axes: Axes, row: int, column: int, cores: list[Mapping[str, Any]], side: int) -> None:
    axes.add_patch(Rectangle((column, row), TILE, TILE, facecolor=EMPTY, edgecolor="none"))
    step = TILE / side
    for place, core in enumerate(cores):
        full = max(core["use"].values())
        axes.add_patch(
            Rectangle(
                (column + place % side * step, row + place // side * step),
                0.92 * step,
                0.92 * step,
                facecolor=part_colour(core["part"]),
                alpha=0.25 + 0.75 * min(1.0, full),
                edgecolor="none",
            )
        )
