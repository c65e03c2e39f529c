"""Energy by part of the network, with the band of each, under a cost table that is chosen."""

from __future__ import annotations

import functools
from typing import Any

import altair as alt

from spikingmoe.report.facts import ReportFacts
from spikingmoe.report.markup import Html
from spikingmoe.report.parts import merged_parts
from spikingmoe.report.plots.plot import INK, NAMES, Row, choice, figures, plot, rows, spec_of
from spikingmoe.report.wording import MODELS, label, look, mapping

MODEL_COLOURS = ("#0072b2", "#e69f00", "#b0b0b0", "#cc79a7")
WORDS = (
    "Bars: nJ per image, counted operations times the costs of the table chosen (an estimate); "
    "the line over a bar: from low to high cost."
)


def energy_plot(facts: ReportFacts) -> Html | None:
    """Bars per part and model, lines from low to high; None if nothing was split by part."""
    values = energy_rows(facts.metrics)
    if not values:
        return None
    tables = tuple(dict.fromkeys(row["table"] for row in values))
    models = tuple(dict.fromkeys(row["model"] for row in values))
    parts = max(len({r["part"] for r in values if r["table"] == table}) for table in tables)
    spec = _spec(tables, models, parts)
    columns = {"table": "cost table", "model": "model", "part": "part", "value": "nJ per image",
               "low": "low", "high": "high"}  # fmt: skip
    return plot(spec, values, title="Energy by part of the network", words=WORDS,
                still=figures(values, columns))  # fmt: skip


def energy_rows(metrics: dict[str, Any]) -> list[Row]:
    """(table, model, part, value, low, high) in nanojoules per image."""
    found: list[Row] = []
    for table, models in mapping(metrics, "energy").items():
        for model, report in mapping(models).items():
            for part, (value, low, high) in merged_parts(mapping(look(report, "by_part"))).items():
                found.append({"table": str(table), "model": label(model, MODELS), "part": part,
                              "value": value / 1000, "low": low / 1000, "high": high / 1000})  # fmt: skip
    return found


@functools.cache
def _spec(tables: tuple[str, ...], models: tuple[str, ...], parts: int) -> dict[str, Any]:
    colours = [MODEL_COLOURS[i % len(MODEL_COLOURS)] for i in range(len(models))]
    title = "nJ per image (estimate)"
    table = choice("cost_table", tables, "cost table")
    base = (
        alt.Chart(rows())
        .transform_filter("datum.table == cost_table")
        .encode(
            y=alt.Y("part:N", sort=None, title=None, axis=NAMES),
            yOffset=alt.YOffset("model:N", sort=list(models)),
            tooltip=[
                "part:N", "model:N",
                alt.Tooltip("value:Q", format=",.3~f", title="nJ"),
                alt.Tooltip("low:Q", format=",.3~f"), alt.Tooltip("high:Q", format=",.3~f"),
            ],
        )
    )  # fmt: skip
    bars = base.mark_bar(opacity=0.85).encode(
        x=alt.X("value:Q", title=title, axis=alt.Axis(tickCount=5)),
        color=alt.Color("model:N", title=None, scale=alt.Scale(domain=list(models), range=colours)),
    )
    bands = base.mark_rule(color=INK, strokeWidth=2).encode(x="low:Q", x2="high:Q")
    height = parts * (8 + 9 * len(models))
    return spec_of((bars + bands).add_params(table).properties(width="container", height=height))
