"""Which classes go to which expert, and how the choices spread."""

from __future__ import annotations

import functools
from typing import Any

import altair as alt
import numpy as np

from spikingmoe.report.facts import ReportFacts
from spikingmoe.report.markup import Html
from spikingmoe.report.plots.plot import NAMES, Row, choice, figures, plot, rows, spec_of
from spikingmoe.report.samples import class_name

ALL = "all classes"


def specialisation_plot(facts: ReportFacts) -> Html | None:
    """A row per class and a column per expert; None without routers or labels."""
    values = specialisation_rows(facts)
    if not values:
        return None
    routers = tuple(dict.fromkeys(row["router"] for row in values))
    classes = tuple(dict.fromkeys(row["class"] for row in values))
    words = (
        "A row per class, a column per expert: the share of the class's choices that fall on the expert, "
        f"in %; a row adds up to 100 %. n = {len(facts.labels)} images recorded here."
    )
    columns = {"router": "router", "class": "class", "expert": "expert", "share": "share %",
               "images": "images (n)"}  # fmt: skip
    return plot(_spec(routers, len(classes)), values, title="Which classes go to which expert",
                words=words, still=figures(values, columns))  # fmt: skip


def specialisation_rows(facts: ReportFacts) -> list[Row]:
    """(router, class, expert, share %, images); the first class is all of them together."""
    labels = np.asarray(facts.labels)
    found: list[Row] = []
    for router in facts.routers if len(labels) else []:
        gates = facts.gates(router)
        counts = gates.reshape(len(gates), -1, gates.shape[-1]).sum(axis=1, dtype=np.int64)
        groups = [(ALL, np.ones(len(labels), bool))]
        groups += [(class_name(facts, int(c)), labels == c) for c in np.unique(labels)]
        for name, members in groups:
            chosen = counts[members].sum(axis=0)
            for expert, share in enumerate(chosen / max(chosen.sum(), 1)):
                found.append({"router": router, "class": name, "expert": expert,
                              "share": round(100 * float(share), 2), "images": int(members.sum())})  # fmt: skip
    return found


@functools.cache
def _spec(routers: tuple[str, ...], classes: int) -> dict[str, Any]:
    chart = (
        alt.Chart(rows())
        .transform_filter("datum.router == class_router")
        .mark_rect(stroke="#ffffff")
        .encode(
            x=alt.X("expert:O", axis=alt.Axis(labelAngle=0), title="expert"),
            y=alt.Y("class:N", sort=None, title=None, axis=NAMES),
            color=alt.Color("share:Q", title="share of choices, %",
                            scale=alt.Scale(scheme="viridis", domainMin=0),
                            legend=alt.Legend(gradientLength=80)),
            tooltip=["class:N", "expert:O", alt.Tooltip("share:Q", title="share %"), "images:Q"],
        )
        .add_params(choice("class_router", routers, "router"))
        .properties(width="container", height=max(22 * classes, 60))
    )  # fmt: skip
    return spec_of(chart)
