"""Small pictures: pixels as PNG, everything with lines or words as SVG that follows the page's colours."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping

import numpy as np
from matplotlib.image import imsave

from spikingmoe.report.markup import Html, join, tag
from spikingmoe.report.style import OFF_COLOUR, ON_COLOUR, expert_colour
from spikingmoe.report.wording import count


def to_rgb(image: np.ndarray) -> np.ndarray:
    """(height, width, C) pixels in 0..1 as uint8 RGB; two channels are event polarities, ON and OFF."""
    image = np.clip(np.nan_to_num(np.asarray(image, dtype=np.float64)), 0.0, 1.0)
    if image.shape[-1] == 2:
        colours = np.array([_rgb(ON_COLOUR), _rgb(OFF_COLOUR)]) / 255.0
        image = np.clip(image @ colours, 0.0, 1.0)
    elif image.shape[-1] != 3:
        image = np.repeat(image.mean(axis=-1, keepdims=True), 3, axis=-1)
    return (255 * image).round().astype(np.uint8)


def tinted(strength: np.ndarray, colour: str) -> np.ndarray:
    """(height, width) of 0..1 as uint8 RGBA: one colour, as opaque as the value is large."""
    picture = np.empty((*strength.shape, 4), dtype=np.uint8)
    picture[..., :3] = _rgb(colour)
    picture[..., 3] = (255 * np.clip(strength, 0.0, 1.0)).round().astype(np.uint8)
    return picture


def png_uri(pixels: np.ndarray) -> str:
    """uint8 RGB or RGBA pixels as a data URI."""
    buffer = io.BytesIO()
    pixels = np.ascontiguousarray(pixels)
    imsave(buffer, pixels, format="png", metadata={"Software": ""})
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def pixels(array: np.ndarray, alt: str, *, side: int, photo: bool = False) -> Html:
    """uint8 pixels as a picture about `side` CSS pixels large."""
    height, width = array.shape[:2]
    scale = side / max(height, width)
    return tag(
        "img", src=png_uri(array), alt=alt, class_="px photo" if photo else "px",
        width=max(round(width * scale), 1), height=max(round(height * scale), 1),
    )  # fmt: skip


def figure(picture: Html, caption: object) -> Html:
    """A picture with a line under it."""
    return tag("figure", picture, tag("figcaption", caption))


def prompt_map(prompt: np.ndarray, colour: str) -> Html:
    """(T, M) spikes: a row per time step."""
    steps, neurons = prompt.shape
    wide, tall = max(min(22, 560 // max(neurons, 1)), 4), 20
    left = 36
    parts = []
    for t in range(steps):
        parts.append(tag("text", f"t = {t}", x=0, y=t * tall + 15))
        for j in range(neurons):
            on = bool(prompt[t, j])
            parts.append(
                tag("rect", x=left + j * wide + 1, y=t * tall + 2, width=wide - 2, height=tall - 3,
                    fill=colour if on else None, class_=None if on else "cell")
            )  # fmt: skip
    return _svg(left + neurons * wide + 2, steps * tall + 2, "prompt, a row per step", parts)


def token_map(gates: np.ndarray, silent: np.ndarray, words: str, *, side: int = 128) -> Html:
    """Which experts each token went to, over the image (the page's `--photo` where it is put).

    Args:
        gates: (height, width, E); a token with several experts is split between them.
        silent: (height, width), tokens that sent no spike: a dot instead of a filled cell.
    """
    rows, columns, _ = gates.shape
    cell = side / max(rows, columns)
    fills: dict[str, list[str]] = {}
    dots: dict[str, list[str]] = {}
    outline: list[str] = []
    words_on_top: list[Html] = []
    for y, x in np.ndindex(rows, columns):
        chosen = np.flatnonzero(gates[y, x])
        inset = 0.06 * cell
        left, top, size = x * cell + inset, y * cell + inset, cell - 2 * inset
        if not len(chosen):
            outline.append(_box(left, top, size, size))
            continue
        for k, e in enumerate(chosen):
            colour = expert_colour(int(e))
            if silent[y, x]:
                centre = left + size * (k + 1) / (len(chosen) + 1)
                dots.setdefault(colour, []).append(_dot(centre, top + size / 2, 0.13 * size))
            else:
                fills.setdefault(colour, []).append(_share(left, top, size, k, len(chosen)))
        if not silent[y, x] and size / len(chosen) ** 0.5 >= 15 and len(chosen) <= 2:
            for k, e in enumerate(chosen):
                at = 0.5 if len(chosen) == 1 else 0.28 + 0.44 * k
                words_on_top.append(
                    tag(
                        "text",
                        int(e),
                        x=_r(left + at * size),
                        y=_r(top + at * size + 4),
                        class_="id",
                    )
                )
    edge = _r(min(2.0, 0.07 * cell))
    parts: list[Html] = []
    parts += [
        tag("path", d="".join(d), fill=c, fill_opacity=".6", stroke=c, stroke_width=edge)
        for c, d in fills.items()
    ]
    parts += [tag("path", d="".join(d), fill=c, stroke="#fff") for c, d in dots.items()]
    if outline:
        parts.append(
            tag("path", d="".join(outline), fill="none", stroke="#9aa4b0", stroke_dasharray="3 2")
        )
    return _svg(columns * cell, rows * cell, words, parts + words_on_top, class_="over")


def line_chart(
    series: dict[str, tuple[list[float], list[float]]],
    colours: list[str],
    *,
    low: float,
    high: float,
    unit: str,
) -> Html:
    """Lines over epochs; names at their ends are in the legend outside."""
    width, height, left, bottom, top = 360, 200, 46, 24, 8
    xs = [x for x_values, _ in series.values() for x in x_values]
    first, last = min(xs), max(xs)
    high = high if high > low else low + 1.0

    def at(x: float, y: float) -> str:
        right = left + (x - first) / (last - first or 1.0) * (width - left - 8)
        return f"{right:.1f},{top + (high - y) / (high - low) * (height - top - bottom):.1f}"

    parts = []
    for i in range(5):
        value = low + (high - low) * i / 4
        x, y = at(first, value).split(",")
        parts.append(tag("line", x1=x, x2=width - 8, y1=y, y2=y, class_="line"))
        text = f"{100 * value:.0f} %" if unit == "%" else f"{value:.2f}"
        parts.append(tag("text", text, x=left - 6, y=float(y) + 4, text_anchor="end", class_="dim"))
    for value, anchor in ((first, "start"), (last, "end")):
        x = at(value, low).split(",")[0]
        parts.append(
            tag("text", f"epoch {value:g}", x=x, y=height - 6, text_anchor=anchor, class_="dim")
        )
    for (name, (x_values, y_values)), colour in zip(series.items(), colours, strict=False):
        points = " ".join(at(x, y) for x, y in zip(x_values, y_values, strict=True))
        parts.append(
            tag(
                "polyline",
                tag("title", name),
                points=points,
                fill="none",
                stroke=colour,
                stroke_width=2,
                stroke_linejoin="round",
            )
        )
    return _svg(width, height, ", ".join(series), parts)


def timeline(depth: int, steps: int, samples: int = 3) -> Html:
    """Samples that enter and leave a pipeline of `depth` steps back to back."""
    total = depth + samples * steps
    unit, left, row = 560 / total, 76, 30
    parts = []
    for s in range(samples):
        y, start = 4 + s * row, s * steps
        parts.append(tag("text", f"image {s + 1}", x=0, y=y + 15))
        parts.append(tag("rect", x=left, y=y, width=560, height=22, class_="cell"))
        parts.append(
            tag(
                "rect",
                x=_r(left + start * unit),
                y=_r(y + 9),
                width=_r((depth + steps) * unit),
                height=4,
                fill=expert_colour(s),
                opacity=".45",
            )
        )
        for begin in (start, start + depth):
            parts.append(
                tag(
                    "rect",
                    x=_r(left + begin * unit),
                    y=y,
                    width=_r(steps * unit),
                    height=22,
                    fill=expert_colour(s),
                )
            )
    y = 4 + samples * row + 10
    for value in sorted({0, steps, depth, depth + steps, total}):
        x = _r(left + value * unit)
        parts.append(tag("line", x1=x, x2=x, y1=0, y2=y - 10, class_="line"))
        below = 12 if value in (steps, depth + steps) else 0
        parts.append(
            tag("text", count(value), x=x, y=y + 2 + below, text_anchor="middle", class_="dim")
        )
    return _svg(left + 560 + 24, y + 20, "samples in the pipeline, by hardware step", parts)


def legend(colours: Mapping[str, str]) -> Html:
    """Names and their colours."""
    return tag(
        "div",
        *(
            tag("span", tag("i", style=f"background:{colour}"), name, class_="key")
            for name, colour in colours.items()
        ),
        class_="soft",
    )


def _svg(
    width: float, height: float, words: str, parts: list[Html], *, class_: str | None = None
) -> Html:
    return tag(
        "svg",
        join(parts),
        viewBox=f"0 0 {_r(width)} {_r(height)}",
        width=_r(width),
        height=_r(height),
        role="img",
        aria_label=words,
        class_=class_,
    )


def _share(left: float, top: float, size: float, index: int, shares: int) -> str:
    """The whole cell, one of its two triangles, or one of several stripes."""
    right, bottom = left + size, top + size
    if shares == 2:
        corner = (left, top) if index == 0 else (right, bottom)
        return f"M{_r(corner[0])} {_r(corner[1])}L{_r(right)} {_r(top)}L{_r(left)} {_r(bottom)}z"
    return _box(left + index * size / shares, top, size / shares, size)


def _box(left: float, top: float, width: float, height: float) -> str:
    return f"M{_r(left)} {_r(top)}h{_r(width)}v{_r(height)}h{_r(-width)}z"


def _dot(x: float, y: float, radius: float) -> str:
    r = _r(radius)
    return f"M{_r(x - radius)} {_r(y)}a{r} {r} 0 1 0 {_r(2 * radius)} 0a{r} {r} 0 1 0 {_r(-2 * radius)} 0z"


def _r(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
