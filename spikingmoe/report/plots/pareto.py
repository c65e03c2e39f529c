"""Accuracy against cost of several runs and their twins, and which points nothing else beats."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import altair as alt

from spikingmoe.report.markup import Html
from spikingmoe.report.plots.accuracy import own_accuracy
from spikingmoe.report.plots.plot import MIDDLE, Row, choice, figures, plot, rows, spec_of
from spikingmoe.report.style import expert_colour
from spikingmoe.report.wording import MODELS, band, interval, label, look, mapping, number

SYNOPS = "synaptic operations (thousand)"
TITLE = "cost per image, in the unit chosen above"


def pareto_plot(metrics_by_run: Mapping[str, dict[str, Any]]) -> Html | None:
    """A point per run and twin, with intervals of both axes; None for fewer than two points."""
    values = pareto_rows(metrics_by_run)
    if len({(row["run"], row["model"]) for row in values}) < 2:
        return None
    costs = tuple(dict.fromkeys(row["cost"] for row in values))
    runs = tuple(dict.fromkeys(row["run"] for row in values))
    columns = {"run": "run", "model": "model", "cost": "cost", "x": "value", "low": "low",
               "high": "high", "accuracy": "accuracy %", "least": "95 % from", "most": "to",
               "images": "images (n)", "front": "unbeaten"}  # fmt: skip
    return plot(_spec(costs, runs), values, title="Accuracy against cost", words=words(values),
                still=figures(values, columns))  # fmt: skip


def words(values: list[Row]) -> str:
    """What the plot shows, with the numbers of test images behind the accuracies."""
    counts = " or ".join(map(str, sorted({row["images"] for row in values})))
    return (
        "Up: accuracy in %, with its 95 % interval (Wilson). Across: cost per image, in the unit chosen, "
        "from low to high; energies are estimates. Dashed: the Pareto front, points that no other one beats "
        f"in accuracy and cost at once. n = {counts} test images."
    )


def pareto_rows(metrics_by_run: Mapping[str, dict[str, Any]]) -> list[Row]:
    """One row per run, model and cost: x with low and high, accuracy in percent with its interval.

    `front` marks what no other point beats: none is as cheap and more accurate, or as accurate and cheaper.
    Synaptic operations of twins without spikes are left out: theirs are multiply-accumulates.
    """
    found: list[Row] = []
    for run, metrics in metrics_by_run.items():
        own = own_accuracy(metrics)
        if own is None:
            continue
        share, samples = own
        twins = mapping(metrics, "accuracy", "twins")
        for cost, models in _costs(metrics).items():
            for model, (x, low, high) in models.items():
                reached = share if model == _own(models) else number(twins.get(model))
                if reached is None or not 0 <= reached <= 1:
                    continue
                least, most = interval(reached, samples)
                found.append({
                    "run": run, "model": label(model, MODELS), "cost": cost, "x": x, "low": low,
                    "high": high, "accuracy": 100 * reached, "least": 100 * least,
                    "most": 100 * most, "images": int(samples),
                })  # fmt: skip
    for row in found:
        rivals = [r for r in found if r["cost"] == row["cost"]]
        row["front"] = "yes" if not any(_beats(r, row) for r in rivals) else "no"
    return found


def _own(models: Mapping[str, object]) -> str:
    return "moe" if "moe" in models else next(iter(models))


def _costs(metrics: dict[str, Any]) -> dict[str, dict[str, tuple[float, float, float]]]:
    """By cost, by model: (value, low, high), all positive."""
    found: dict[str, dict[str, tuple[float, float, float]]] = {}
    for table, models in mapping(metrics, "energy").items():
        for model, report in mapping(models).items():
            value = band(look(report, "energy_pj_per_sample"))
            if value is not None and min(value) > 0:
                low, high = value[1] / 1000, value[2] / 1000
                found.setdefault(f"energy by {table} (nJ)", {})[model] = value[0] / 1000, low, high
    for model, value in mapping(metrics, "synops_per_sample").items():
        count = number(value)
        if count is not None and count > 0 and model not in ("relu", "quantised"):
            thousand = count / 1000
            found.setdefault(SYNOPS, {})[model] = thousand, thousand, thousand
    return found


def _beats(a: Row, b: Row) -> bool:
    as_good = a["x"] <= b["x"] and a["accuracy"] >= b["accuracy"]
    return as_good and (a["x"] < b["x"] or a["accuracy"] > b["accuracy"])


@functools.cache
def _spec(costs: tuple[str, ...], runs: tuple[str, ...]) -> dict[str, Any]:
    colours = [expert_colour(i) for i in range(len(runs))]
    base = alt.Chart(rows()).transform_filter("datum.cost == pareto_cost")
    tips = ["run:N", "model:N", "cost:N", alt.Tooltip("x:Q", format=",.4~g", title="value"),
            alt.Tooltip("low:Q", format=",.4~g"), alt.Tooltip("high:Q", format=",.4~g"),
            alt.Tooltip("accuracy:Q", format=".2f", title="accuracy %"),
            alt.Tooltip("least:Q", format=".2f", title="95 % from"),
            alt.Tooltip("most:Q", format=".2f", title="to")]  # fmt: skip
    scale = alt.Scale(zero=False)
    x, y = (
        alt.X("x:Q", title=TITLE, scale=scale, axis=alt.Axis(tickCount=6)),
        alt.Y("accuracy:Q", title="accuracy %", scale=scale),
    )
    front = (
        base.transform_filter("datum.front == 'yes'")
        .mark_line(color=MIDDLE, strokeDash=[4, 3], interpolate="step-after")
        .encode(x=x, y=y, order="x:Q")
    )
    across = base.mark_rule(color=MIDDLE, opacity=0.6).encode(
        x=alt.X("low:Q", title=TITLE, scale=scale, axis=alt.Axis(tickCount=6)), x2="high:Q", y=y
    )
    down = base.mark_rule(color=MIDDLE, opacity=0.6).encode(
        x=x, y=alt.Y("least:Q", title="accuracy %", scale=scale), y2="most:Q"
    )
    points = base.mark_point(filled=True, size=130, opacity=1).encode(
        x=x, y=y, tooltip=tips, shape=alt.Shape("model:N", title=None, legend=alt.Legend(orient="bottom", columns=4)),
        color=alt.Color("run:N", title=None, scale=alt.Scale(domain=list(runs), range=colours),
                        legend=alt.Legend(columns=2)),
    )  # fmt: skip
    layers = (front + across + down + points).add_params(choice("pareto_cost", costs, "cost"))
    return spec_of(layers.properties(width="container", height=320))
