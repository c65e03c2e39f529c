"""Cores of each population on a Loihi chip."""

from __future__ import annotations

import functools
from typing import Any

import altair as alt

from spikingmoe.report.facts import ReportFacts
from spikingmoe.report.markup import Html
from spikingmoe.report.plots.plot import NAMES, Row, choice, figures, plot, rows, spec_of
from spikingmoe.report.wording import look, mapping, plain, sequence

MOST_POPULATIONS = 24


def mapping_plot(facts: ReportFacts) -> Html | None:
    """Bars per population for a chosen program; None if nothing was mapped."""
    values = mapping_rows(facts.metrics)
    if not values:
        return None
    programs = tuple(dict.fromkeys(row["program"] for row in values))
    most = max(sum(row["program"] == program for row in values) for program in programs)
    words = (
        f"Neuromorphic cores per population, for the program chosen; the {MOST_POPULATIONS} largest at most. "
        "An estimate; a core that several populations share counts for each."
    )
    columns = {"program": "program", "population": "population", "cores": "cores", "shape": "shape"}
    return plot(_spec(programs, most), values, title="Cores by population", words=words,
                still=figures(values, columns))  # fmt: skip


def mapping_rows(metrics: dict[str, Any]) -> list[Row]:
    """(program, population, cores, neurons' shape) of those that take most cores."""
    found: list[Row] = []
    for program, report in mapping(metrics, "mapping").items():
        own = []
        for population in sequence(look(report, "populations")):
            cores = len(sequence(look(population, "cores")))
            if cores:
                own.append({"program": str(program), "population": plain(look(population, "name")),
                            "cores": cores, "shape": plain(look(population, "shape"))})  # fmt: skip
        found += sorted(own, key=lambda row: -row["cores"])[:MOST_POPULATIONS]
    return found


@functools.cache
def _spec(programs: tuple[str, ...], populations: int) -> dict[str, Any]:
    chart = (
        alt.Chart(rows())
        .transform_filter("datum.program == mapped_program")
        .mark_bar(color="#0072b2")
        .encode(
            x=alt.X("cores:Q", title="cores (estimate)", axis=alt.Axis(tickMinStep=1)),
            y=alt.Y("population:N", sort=None, title=None, axis=NAMES),
            tooltip=["population:N", "cores:Q", "shape:N"],
        )
        .add_params(choice("mapped_program", programs, "program"))
        .properties(width="container", height=max(18 * populations, 40))
    )  # fmt: skip
    return spec_of(chart)
