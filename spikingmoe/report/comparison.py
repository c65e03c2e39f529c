"""Several runs beside each other."""

from __future__ import annotations

from collections.abc import Mapping

from spikingmoe.report.facts import ReportFacts
from spikingmoe.report.findings import energy_band
from spikingmoe.report.markup import Html, join, table, tag
from spikingmoe.report.plots import pareto_plot
from spikingmoe.report.plots.accuracy import own_accuracy
from spikingmoe.report.wording import (
    count,
    energy,
    interval,
    look,
    mapping,
    number,
    percent,
    plain,
)

NOTE = (
    "Colours tell runs apart, shapes the run itself and its twins. Runs compare only where they were "
    "measured on the same images."
)


def comparison_section(runs: Mapping[str, ReportFacts]) -> Html:
    """A table with a row per run, and accuracy against cost."""
    header = ["run", "preset", "accuracy", "95 % interval", "images", "synaptic operations",
              "estimated energy", "spikes that differ"]  # fmt: skip
    metrics = {name: facts.metrics for name, facts in runs.items()}
    rows = [(name, *_row(values)) for name, values in metrics.items()]
    plot = pareto_plot(metrics)
    return tag(
        "section", tag("h2", "The runs compared"), tag("div", table(header, rows), class_="wide"),
        join([plot, tag("p", NOTE, class_="note")])
        if plot
        else tag("p", "Accuracy against cost: needs `spikingmoe energy RUN` of these runs.",
                 class_="missing"),
        id="comparison",
    )  # fmt: skip


def _row(metrics: dict) -> list[str]:
    own = own_accuracy(metrics)
    spread = "-"
    if own is not None:
        low, high = interval(*own)
        spread = f"{100 * low:.1f} to {100 * high:.1f} %"
    name = next(iter(mapping(metrics, "energy_pj_per_sample")), "")
    spent = energy_band(metrics, name)
    differing = [
        value
        for key in ("torch", "float", "fixed")
        if (value := number(look(metrics, "verify", key, "differing"))) is not None
    ]
    return [
        plain(look(metrics, "config", "model", "preset")),
        percent(own[0]) if own else "-",
        spread,
        count(own[1]) if own else "-",
        count(look(metrics, "synops_per_sample", name)),
        f"{energy(spent[0])} ({energy(spent[1])} to {energy(spent[2])})" if spent else "-",
        count(sum(differing)) if differing else "not verified",
    ]
