"""How much each population spikes, by hardware step: the raster of all at one glance."""

from __future__ import annotations

import functools
from typing import Any

import altair as alt

from spikingmoe.report.facts import ReportFacts
from spikingmoe.report.markup import Html
from spikingmoe.report.plots.plot import NAMES, Row, choice, elsewhere, plot, rows, spec_of
from spikingmoe.report.raster import raster_rows
from spikingmoe.report.samples import choose_samples, sample_name

MOST_ROWS = 30_000


def activity_plot(facts: ReportFacts) -> Html | None:
    """A row per population, a cell per step, the darker the more neurons spiked."""
    values = activity_rows(facts)
    if not values:
        return None
    images = tuple(dict.fromkeys(row["image"] for row in values))
    populations = len({row["population"] for row in values})
    words = (
        "For one image (n = 1): a row per population in the order of the network, a cell per hardware step, "
        "coloured by the share of its neurons that spiked, in %."
    )
    still = elsewhere("Neuron by neuron, as still pictures: under Images, spikes, experts.")
    spec = _spec(images, populations)
    return plot(spec, values, title="When each population spikes", words=words, still=still)


def activity_rows(facts: ReportFacts) -> list[Row]:
    """(image, population, neurons, step, share %) of the samples that the page shows."""
    found: list[Row] = []
    for sample in choose_samples(facts):
        own: list[Row] = []
        for _, population, spikes, depth in raster_rows(facts, sample):
            for t, share in enumerate(spikes.mean(axis=0)):
                own.append({"image": sample_name(facts, sample), "population": population,
                            "neurons": len(spikes), "step": depth + t, "share": round(100 * float(share), 2)})  # fmt: skip
        if len(found) + len(own) > MOST_ROWS:
            break
        found += own
    return found


@functools.cache
def _spec(images: tuple[str, ...], populations: int) -> dict[str, Any]:
    chart = (
        alt.Chart(rows())
        .transform_filter("datum.image == activity_image")
        .transform_calculate(end="datum.step + 1")
        .mark_rect()
        .encode(
            x=alt.X("step:Q", title="hardware step", axis=alt.Axis(tickMinStep=1), scale=alt.Scale(nice=False)),
            x2="end:Q",
            y=alt.Y("population:N", sort=None, title=None, axis=NAMES),
            color=alt.Color("share:Q", title="neurons that spike, %", scale=alt.Scale(scheme="viridis"),
                            legend=alt.Legend(gradientLength=80)),
            tooltip=["population:N", "neurons:Q", "step:Q", alt.Tooltip("share:Q", title="spiking %")],
        )
        .add_params(choice("activity_image", images, "image"))
        .properties(width="container", height=max(13 * populations, 60))
    )  # fmt: skip
    return spec_of(chart)
