"""Accuracies with their 95 % intervals."""

from __future__ import annotations

import functools
from typing import Any

import altair as alt

from spikingmoe.report.facts import ReportFacts
from spikingmoe.report.markup import Html
from spikingmoe.report.plots.plot import MIDDLE, NAMES, Row, figures, plot, rows, spec_of
from spikingmoe.report.wording import BACKENDS, MODELS, interval, label, look, mapping, number

ALL_IMAGES = "(all)"


def accuracy_plot(facts: ReportFacts) -> Html | None:
    """A point per backend and twin; None if fewer than two were measured."""
    values = accuracy_rows(facts.metrics)
    if len(values) < 2:
        return None
    counts = sorted({row["images"] for row in values})
    words = (
        "Share of test images answered rightly, in %; the line is the 95 % interval (Wilson). "
        f"n = {' or '.join(map(str, counts))} images; {ALL_IMAGES} marks those of the whole test set."
    )
    columns = {"what": "what", "accuracy": "accuracy %", "low": "95 % from", "high": "to",
               "images": "images (n)"}  # fmt: skip
    return plot(_spec(len(values)), values, title="Accuracy", words=words,
                still=figures(values, columns))  # fmt: skip


def accuracy_rows(metrics: dict[str, Any]) -> list[Row]:
    """(what, accuracy, low, high, images), shares in percent."""
    accuracy, tested = mapping(metrics, "accuracy"), mapping(metrics, "accuracy", "test")
    kept = ("samples", "test", "twins")
    found: list[Row] = []
    for name, value in accuracy.items():
        if name not in kept:
            _add(found, label(name, BACKENDS), value, accuracy.get("samples"))
    for name, value in tested.items():
        if name != "samples":
            _add(found, f"{label(name, BACKENDS)} {ALL_IMAGES}", value, tested.get("samples"))
    for name, value in mapping(accuracy, "twins").items():
        _add(found, f"{label(name, MODELS)} {ALL_IMAGES}", value, tested.get("samples"))
    return found


def own_accuracy(metrics: dict[str, Any]) -> tuple[float, float] | None:
    """(share, images) of torch, on the whole test set where it was measured there."""
    for place in (("accuracy", "test"), ("accuracy",)):
        share = number(look(metrics, *place, "torch"))
        samples = number(look(metrics, *place, "samples"))
        if share is not None and 0 <= share <= 1 and samples is not None and samples >= 1:
            return share, samples
    return None


def _add(found: list[Row], what: str, value: object, of: object) -> None:
    share, samples = number(value), number(of)
    if share is None or samples is None or samples < 1 or not 0 <= share <= 1:
        return
    low, high = interval(share, samples)
    found.append({"what": what, "accuracy": 100 * share, "low": 100 * low, "high": 100 * high,
                  "images": int(samples)})  # fmt: skip


@functools.cache
def _spec(count: int) -> dict[str, Any]:
    y = alt.Y("what:N", sort=None, title=None, axis=NAMES)
    scale = alt.Scale(zero=False, nice=True)
    tips = [alt.Tooltip("what:N", title="what"),
            alt.Tooltip("accuracy:Q", format=".2f", title="accuracy %"),
            alt.Tooltip("low:Q", format=".2f", title="low"),
            alt.Tooltip("high:Q", format=".2f", title="high"),
            alt.Tooltip("images:Q", title="images")]  # fmt: skip
    base = alt.Chart(rows()).encode(y=y, tooltip=tips)
    lines = base.mark_rule(color=MIDDLE, strokeWidth=3, opacity=0.6).encode(
        x=alt.X(
            "low:Q", title="accuracy % (95 % interval)", scale=scale, axis=alt.Axis(tickCount=6)
        ),
        x2="high:Q",
    )
    points = base.mark_point(filled=True, size=90, color="#0072b2", opacity=1).encode(
        x=alt.X("accuracy:Q", scale=scale)
    )
    return spec_of((lines + points).properties(width="container", height=22 * count))
