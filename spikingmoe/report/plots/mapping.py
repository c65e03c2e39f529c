"""Floor plan of a Loihi chip: what each core holds, and how full it is."""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from typing import Any

import altair as alt

from spikingmoe.report.facts import ReportFacts
from spikingmoe.report.markup import Html
from spikingmoe.report.plots.plot import Row, choice, elsewhere, figures, plot, rows, spec_of
from spikingmoe.report.style import part_colour
from spikingmoe.report.wording import look, mapping, number, plain, sequence

CELL = 26  # height of a core, px
MOST_HEIGHT = 900
MOST_NAMED = 4  # populations in the text of a core
MOST_IN_TABLE = 300
MOST_DRAWN = 20_000  # cores; of more, the empty ones are left out
EMPTY, EMPTY_COLOUR = "empty", "#e6e9ee"


def mapping_plot(facts: ReportFacts) -> Html | None:
    """Every core of the program chosen, at its place; None if nothing was mapped."""
    values = mapping_rows(facts.metrics)
    if not values:
        return None
    programs = tuple(dict.fromkeys(row["program"] for row in values))
    parts = tuple(sorted({row["part"] for row in values}))
    words = (
        "Each field is a neuromorphic core at its place on the mesh of tiles, coloured by the part of the network "
        "that most of its neurons belong to, and as opaque as its fullest resource. An estimate."
    )
    columns = {"program": "program", "core": "core", "part": "part", "neurons": "neurons",
               "full": "fullest resource", "holds": "holds"}  # fmt: skip
    still = (
        figures(values, columns)
        if len(values) <= MOST_IN_TABLE
        else elsewhere(f"{len(values):,} cores: the program's metrics.json lists them all.")
    )
    everywhere = values + empty_rows(facts.metrics, values)
    return plot(_spec(programs, parts, max(row["y"] for row in everywhere) + 1), everywhere,
                title="Cores and what they hold", words=words, still=still)  # fmt: skip


def mapping_rows(metrics: dict[str, Any]) -> list[Row]:
    """(program, core, x, y, part, neurons, full, holds) of every core whose place is told."""
    found: list[Row] = []
    for program, report in mapping(metrics, "mapping").items():
        side = _side(report)
        in_tile: Counter[tuple[int, int]] = Counter()
        for index, core in enumerate(sequence(look(report, "core_list"))):
            tile = [number(v) for v in sequence(look(core, "tile"))]
            if len(tile) != 2 or tile[0] is None or tile[1] is None:
                continue
            row, column = int(tile[0]), int(tile[1])
            place = in_tile[row, column]
            in_tile[row, column] += 1
            shares = [s for v in mapping(core, "use").values() if (s := number(v)) is not None]
            held = [plain(look(block, "population")) for block in sequence(look(core, "blocks"))]
            found.append(
                {
                    "program": str(program),
                    "core": index,
                    "x": column * side + place % side,
                    "y": row * side + place // side,
                    "part": plain(look(core, "part")),
                    "neurons": int(number(look(core, "neurons")) or 0),
                    "full": round(min(1.0, max([0.0, *shares])), 3),
                    "holds": _listed(list(dict.fromkeys(held))),
                }
            )
    return found


def empty_rows(metrics: dict[str, Any], used: list[Row]) -> list[Row]:
    """The same of the cores that hold nothing, on chips whose extent is told."""
    found: list[Row] = []
    for program, report in mapping(metrics, "mapping").items():
        sizes = [number(v) for v in (look(report, "chips"), *sequence(look(report, "tiles")))]
        if len(sizes) != 3 or any(v is None or v < 1 for v in sizes):
            continue
        side = _side(report)
        chips, rows_of_tiles, columns = (int(v) for v in sizes if v is not None)
        if chips * rows_of_tiles * columns * side**2 > MOST_DRAWN:
            continue
        taken = {(row["x"], row["y"]) for row in used if row["program"] == program}
        per_row = math.ceil(math.sqrt(chips))
        for chip, row, column in itertools.product(
            range(chips), range(rows_of_tiles * side), range(columns * side)
        ):
            x = chip % per_row * columns * side + column
            y = chip // per_row * rows_of_tiles * side + row
            if (x, y) not in taken:
                found.append({"program": str(program), "core": None, "x": x, "y": y, "part": EMPTY,
                              "neurons": 0, "full": 1.0, "holds": ""})  # fmt: skip
    return found


def _side(report: object) -> int:
    """Cores along a side of a tile."""
    return math.ceil(math.sqrt(max(1.0, number(look(report, "cores_per_tile")) or 1.0)))


def _listed(names: list[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")


@functools.cache
def _spec(programs: tuple[str, ...], parts: tuple[str, ...], height: int) -> dict[str, Any]:
    colours = [*map(part_colour, parts), EMPTY_COLOUR]
    chart = (
        alt.Chart(rows())
        .transform_filter("datum.program == mapped_program")
        .mark_rect(stroke="white", strokeWidth=1)
        .encode(
            x=alt.X("x:O", axis=None),
            y=alt.Y("y:O", axis=None),
            color=alt.Color("part:N", title=None, scale=alt.Scale(domain=[*parts, EMPTY], range=colours)),
            opacity=alt.Opacity("full:Q", legend=None, scale=alt.Scale(domain=[0, 1], range=[0.25, 1])),
            tooltip=["core:Q", "part:N", "neurons:Q", alt.Tooltip("full:Q", format=".0%"), "holds:N"],
        )
        .add_params(choice("mapped_program", programs, "program"))
        .properties(width="container", height=min(CELL * height, MOST_HEIGHT))
    )  # fmt: skip
    return spec_of(chart)
