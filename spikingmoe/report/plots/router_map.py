"""Which experts each token went to, over the image: choose image, router and time step."""

from __future__ import annotations

import functools
from typing import Any

import altair as alt
import numpy as np

from spikingmoe.report.facts import ReportFacts
from spikingmoe.report.markup import Html
from spikingmoe.report.pictures import png_uri, to_rgb
from spikingmoe.report.plots.plot import Row, choice, elsewhere, plot, rows, spec_of
from spikingmoe.report.samples import choose_samples, sample_name, silent_tokens
from spikingmoe.report.style import expert_colour

SIDE = 288  # CSS pixels: fits a telephone
MOST_ROWS = 30_000


def router_map_plot(facts: ReportFacts) -> Html | None:
    """The map, over the image itself; None without routers."""
    values = router_map_rows(facts)
    if not values:
        return None
    images = tuple(dict.fromkeys(row["image"] for row in values))
    routers = tuple(dict.fromkeys(row["router"] for row in values if "router" in row))
    if not routers:
        return None
    shape = facts.gates(routers[0]).shape
    experts = max(facts.gates(router).shape[-1] for router in routers)
    spec = _spec(images, routers, shape[1], experts)
    words = (
        "For one image (n = 1), one router and one time step: a cell per token over the image, coloured by "
        "the expert that it was sent to; a token with several experts is split. Faint: it sent no spike."
    )
    still = elsewhere("All steps at once, as still pictures: under Images, spikes, experts.")
    return plot(
        spec, values, title="Experts chosen per token", words=words, still=still, wide=False
    )


def router_map_rows(facts: ReportFacts) -> list[Row]:
    """A row with the photo of each image, and one per image, router, step, token and chosen expert.

    Places are shares of the image's side: (left, right) and (top, bottom); tokens with several experts are split.
    """
    found: list[Row] = []
    for sample in choose_samples(facts):
        name = sample_name(facts, sample)
        own: list[Row] = [{"image": name, "photo": png_uri(to_rgb(facts.images[sample]))}]
        for router in facts.routers:
            gates, silent = facts.gates(router)[sample], silent_tokens(facts, router)[sample]
            steps, height, width, _ = gates.shape
            for t, y, x in np.ndindex(steps, height, width):
                chosen = np.flatnonzero(gates[t, y, x])
                for k, expert in enumerate(chosen):
                    own.append({
                        "image": name, "router": router, "step": t, "expert": f"expert {expert}",
                        "left": round((x + k / len(chosen)) / width, 4), "top": round(y / height, 4),
                        "right": round((x + (k + 1) / len(chosen)) / width, 4),
                        "bottom": round((y + 1) / height, 4), "token": f"row {y}, column {x}",
                        "sent": "no spike" if silent[t, y, x] else "spikes",
                    })  # fmt: skip
        if found and len(found) + len(own) > MOST_ROWS:
            break
        found += own
    return found


@functools.cache
def _spec(
    images: tuple[str, ...], routers: tuple[str, ...], steps: int, experts: int
) -> dict[str, Any]:
    names = [f"expert {e}" for e in range(experts)]
    colour = alt.Scale(domain=names, range=[expert_colour(e) for e in range(experts)])
    base = alt.Chart(rows()).transform_filter("datum.image == map_image")
    photo = (
        base.transform_filter("isValid(datum.photo)")
        .mark_image(width=SIDE, height=SIDE, aspect=False)
        .encode(x=alt.value(SIDE / 2), y=alt.value(SIDE / 2), url="photo:N")
    )
    place = alt.Scale(domain=[0, 1], nice=False)
    cells = (
        base.transform_filter("datum.router == map_router && datum.step == map_step")
        .mark_rect(stroke="#ffffff", strokeWidth=0.7)
        .encode(
            x=alt.X("left:Q", scale=place, axis=None), x2="right:Q",
            y=alt.Y("top:Q", scale=alt.Scale(domain=[1, 0], nice=False), axis=None), y2="bottom:Q",
            color=alt.Color("expert:N", title=None, scale=colour),
            opacity=alt.condition("datum.sent == 'spikes'", alt.value(0.62), alt.value(0.15)),
            tooltip=["token:N", "expert:N", "sent:N"],
        )
    )  # fmt: skip
    slider = alt.binding_range(min=0, max=max(steps - 1, 1), step=1, name="time step ")
    chart = (photo + cells).add_params(
        choice("map_image", images, "image"),
        choice("map_router", routers, "router"),
        alt.param(name="map_step", bind=slider, value=0),
    )
    return spec_of(chart.properties(width=SIDE, height=SIDE))
