"""One plot in the page: its specification and rows as JSON that `draw.js` draws, and a table of the same."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import altair as alt

from spikingmoe.report.markup import Html, join, table, tag

ROWS = "rows"
MIDDLE = "#5f6975"  # lines beside which the points stand out
INK = "#1d232b"
# Every name is written, and none is cut: without it, half of the rows would stand for nothing.
NAMES = alt.Axis(labelOverlap=False, labelLimit=230)
FONT = "system-ui, sans-serif"
Row = dict[str, Any]


def rows() -> alt.NamedData:
    """The data that a chart refers to; the rows themselves are given to `plot`."""
    return alt.NamedData(name=ROWS)


def choice(name: str, options: Sequence[str | int], words: str) -> alt.Parameter:
    """A drop-down list over the plot, which begins with the first option."""
    bind = alt.binding_select(options=list(options), name=f"{words} ")
    return alt.param(name=name, bind=bind, value=options[0])


def spec_of(chart: alt.Chart | alt.LayerChart | alt.FacetChart) -> dict[str, Any]:
    """The chart as plain data, in the look that all share; colours of lines and words are the page's."""
    styled = (
        chart.configure(background="transparent", font=FONT, padding=2)
        .configure_axis(
            labelFontSize=12,
            titleFontSize=12,
            titleFontWeight="normal",
            labelLimit=170,
            labelColor=INK,
            titleColor=INK,
            labelOverlap="greedy",
            labelSeparation=6,
        )
        .configure_axisX(labelFlush=True)  # the last number stays inside
        .configure_legend(
            labelFontSize=12,
            titleFontSize=12,
            orient="top",
            columns=3,
            labelLimit=170,
            labelColor=INK,
            titleColor=INK,
            titleLimit=300,
        )
        .configure_view(stroke=None)
    )
    values = styled.to_dict()
    values.pop("$schema", None)  # an address, which the page has no use for
    return values


def plot(
    spec: dict[str, Any],
    values: list[Row],
    *,
    title: str,
    words: str,
    still: Html,
    wide: bool = True,
) -> Html:
    """A plot in the page: title, what it shows, the place where it is drawn, and the same without a script.

    Args:
        spec: as `spec_of` makes it.
        values: the rows.
        title: names the plot on the page and for readers who cannot see it.
        words: axes, units and numbers of images; beside the title, and read aloud in the plot's place.
        still: what stands for the plot where no script runs, such as `figures`.
        wide: as wide as the page; else as wide as it says.
    """
    full = {**spec, "description": f"{title}. {words}", "datasets": {ROWS: values}}
    # No "<" leaves the data, so that no text in it can end the element.
    text = json.dumps(full, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    place = tag(
        "div",
        tag("script", Html(text), type="application/json"),
        tag("div", class_="drawing"),
        class_="plot wideplot" if wide else "plot",
        role="group",
        aria_label=f"{title}. {words}",
    )
    return join([tag("h4", title), tag("p", words, class_="note"), place, still])


def figures(values: Iterable[Row], columns: Mapping[str, str]) -> Html:
    """The rows as a table that opens on demand; `columns` maps keys of the rows to headings."""
    cells = [[_cell(row.get(key)) for key in columns] for row in values]
    body = table(list(columns.values()), cells)
    return tag("details", tag("summary", f"The {len(cells)} values of this plot"), body)


def elsewhere(words: str) -> Html:
    """For plots of too many rows for a table: where the page shows the same as still pictures."""
    return tag("p", words, class_="note")


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:,.2f}" if abs(value) >= 1 or value == 0 else f"{value:.3g}"
    return str(value)
