"""HTML whose text is escaped unless it is markup already: `tag("p", "a < b")`."""

from __future__ import annotations

import html
from collections.abc import Iterable

VOID = frozenset({"br", "img", "input", "meta"})


class Html(str):
    """Markup; every other string is text and is escaped where it enters."""


def escape(child: object) -> str:
    """`child` as it stands in a page: markup unchanged, None as nothing, all else escaped."""
    if child is None:
        return ""
    return child if isinstance(child, Html) else html.escape(str(child))


def join(children: Iterable[object]) -> Html:
    """Children one after the other."""
    return Html("".join(escape(child) for child in children))


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """One element. Attributes: `class_` is class, `stroke_width` stroke-width; None leaves one out.

    >>> tag("p", "a < b", class_="note")
    '<p class="note">a &lt; b</p>'
    """
    pairs = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        pairs.append(f" {key}" if value is True else f' {key}="{html.escape(str(value))}"')
    start = f"<{name}{''.join(pairs)}>"
    return Html(start if name in VOID else f"{start}{join(children)}</{name}>")


def table(
    header: Iterable[object], rows: Iterable[Iterable[object]], *, caption: object = None
) -> Html:
    """A table that scrolls sideways where the window is narrower; the first column names its row."""
    head = tag("thead", tag("tr", *(tag("th", cell, scope="col") for cell in header)))
    body = []
    for first, *rest in rows:
        body.append(tag("tr", tag("th", first, scope="row"), *(tag("td", cell) for cell in rest)))
    title = tag("caption", caption) if caption else None
    return tag("div", tag("table", title, head, tag("tbody", *body)), class_="scroll", tabindex="0")


def bars(
    rows: Iterable[tuple[object, float, object]],
    *,
    most: float,
    mark: float | None = None,
    colours: Iterable[str] | None = None,
    bands: list[tuple[float, float]] | None = None,
) -> Html:
    """Horizontal bars: (name, value, text beside it), on a scale from 0 to `most`.

    Args:
        mark: a value drawn as a line across every bar.
        colours: one per bar.
        bands: (low, high) per bar, drawn as a thin line over it.
    """
    rows = list(rows)
    shades = list(colours) if colours is not None else [""] * len(rows)
    scale = 100.0 / most if most > 0 else 0.0

    def place(value: float) -> str:
        return f"{min(max(value * scale, 0.0), 100.0):.2f}%"

    lines = []
    for i, (name, value, text) in enumerate(rows):
        colour = f";background:{shades[i]}" if shades[i] else ""
        parts = [tag("span", class_="fill", style=f"width:{place(value)}{colour}")]
        if bands is not None:
            low, high = bands[i]
            width = place(max(high - low, 0.0))
            parts.append(tag("span", class_="band", style=f"left:{place(low)};width:{width}"))
        if mark is not None:
            parts.append(tag("span", class_="mark", style=f"left:{place(mark)}"))
        lines.append(
            tag(
                "div",
                tag("span", name, class_="name"),
                tag("span", *parts, class_="track"),
                tag("span", text, class_="value"),
                class_="bar",
            )
        )
    return tag("div", *lines, class_="bars")
