"""One plot in the page: its specification and its rows, as JSON that `scripts.py` draws."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import altair as alt

from spikingmoe.report.markup import Html, tag

ROWS = "rows"
MIDDLE = "#7d8794"  # lines that are legible on light and on dark
FONT = "system-ui, sans-serif"
Row = dict[str, Any]


def rows() -> alt.NamedData:
    """The data that a chart refers to; the rows themselves are given to `plot`."""
    return alt.NamedData(name=ROWS)


def choice(name: str, options: Sequence[str | int], words: str) -> alt.Parameter:
    """A drop-down list over the plot, which begins with the first option."""
    bind = alt.binding_select(options=list(options), name=f"{words} ")
    return alt.param(name=name, bind=bind, value=options[0])


def spec_of(chart: alt.Chart | alt.LayerChart) -> dict[str, Any]:
    """The chart as plain data, in the look that all share; colours of lines and words are the page's."""
    styled = (
        chart.configure(background="transparent", font=FONT, padding=2)
        .configure_axis(
            labelFontSize=11, titleFontSize=11, titleFontWeight="normal", labelLimit=150
        )
        .configure_legend(
            labelFontSize=11, titleFontSize=11, orient="top", columns=3, labelLimit=150
        )
        .configure_view(stroke=None)
    )
    values = styled.to_dict()
    values.pop("$schema", None)  # an address, which the page has no use for
    return values


def plot(spec: dict[str, Any], values: list[Row], words: str, *, wide: bool = True) -> Html:
    """The place of a plot in the page.

    Args:
        spec: as `spec_of` makes it.
        values: the rows.
        words: what it shows, for readers who cannot see it.
        wide: as wide as the page; else as wide as it says.
    """
    full = {**spec, "datasets": {ROWS: values}}
    # No "<" leaves the data, so that no text in it can end the element.
    text = json.dumps(full, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return tag(
        "div",
        tag("script", Html(text), type="application/json"),
        tag("div", class_="drawing"),
        class_="plot wideplot" if wide else "plot",
        role="group",
        aria_label=words,
    )
