"""Spike rasters: a row per population, hardware steps across, neurons down."""

from __future__ import annotations

import re

import numpy as np

from spikingmoe.report.facts import ReportFacts
from spikingmoe.report.markup import Html, tag
from spikingmoe.report.pictures import png_uri, tinted
from spikingmoe.report.style import GROUP_COLOURS, expert_colour

MOST_ROWS = 64  # beyond it, populations of one kind and depth (all experts) share a row
GROUPS = {
    "stem": "Stem (and what halves the map between stages)",
    "prompt": "Prompt (SDprompt)",
    "mixing": "Local mixing",
    "attention": "Attention",
    "router": "Router",
    "experts": "Experts (and the neurons that read the stream for them)",
    "head": "Head",
    "other": "Others",
}


def group_of(population: str) -> str:
    """The group, one of `GROUPS`, that a population of a lowered model is drawn in.

    >>> group_of("blocks.0.moe.experts.2.hidden"), group_of("blocks.0.moe.latch")
    ('experts', 'router')
    """
    root, *rest = population.split(".")
    if root in ("stem", "prompt", "head"):
        return root
    if root == "downsamples":
        return "stem"
    for part in ("mixing", "attention", "prompt"):
        if part in rest:
            return part
    if re.search(r"\.moe(\.links\.\d+)?\.(score|compare|choice|gate|decided|latch)$", population):
        return "router"
    return "experts" if "moe" in rest or "mlp" in rest else "other"


def spiking(facts: ReportFacts) -> dict[str, list[str]]:
    """Populations with binary spikes, by group, in hardware order; constants and clocks left out."""
    found: dict[str, list[str]] = {group: [] for group in GROUPS}
    for name, spikes in facts.spikes.items():
        if spikes.dtype == bool and not name.startswith(("constant", "clock", "input")):
            found[group_of(name)].append(name)
    for names in found.values():
        names.sort(key=lambda name: facts.depth.get(name, 0))
    return {group: names for group, names in found.items() if names}


def raster(facts: ReportFacts, sample: int) -> Html:
    """The raster of one sample; one column of pixels per time step, placed at depth + t."""
    rows = raster_rows(facts, sample)
    steps = next(iter(facts.spikes.values())).shape[1]
    total = max((depth for *_, depth in rows), default=0) + steps
    left = max((len(name) for _, name, _, _ in rows), default=0) * 6.1 + 10
    unit = min(max(640 / total, 4.0), 28.0)
    parts: list[Html] = []
    y, group = 14.0, ""
    for part, name, spikes, depth in rows:
        if part != group:
            parts.append(tag("text", GROUPS[part], x=0, y=f"{y + 13:.0f}", font_weight="bold"))
            y, group = y + 19, part
        tall = min(max(len(spikes), 10), 26)
        width = len(spikes[0]) * unit
        parts.append(
            tag(
                "text",
                name,
                x=8,
                y=f"{y + tall / 2 + 4:.1f}",
                class_="dim",
                style="font-family:ui-monospace,monospace;font-size:10px",
            )
        )
        box = {
            "x": f"{left + depth * unit:.1f}",
            "y": f"{y:.1f}",
            "width": f"{width:.1f}",
            "height": tall,
        }
        parts.append(tag("rect", **box, class_="cell"))
        picture = tinted(np.sqrt(_pool(spikes, tall)), population_colour(name))
        parts.append(tag("image", href=png_uri(picture), preserveAspectRatio="none", **box))
        neurons = f"{len(spikes):,} neurons"
        right = left + depth * unit + width + 5
        anchor = "start" if right + 80 < left + total * unit + 60 else "end"
        at = right if anchor == "start" else left + depth * unit - 5
        parts.append(
            tag(
                "text",
                neurons,
                x=f"{at:.1f}",
                y=f"{y + tall / 2 + 4:.1f}",
                text_anchor=anchor,
                class_="dim",
                style="font-size:9px",
            )
        )
        y += tall + 3
    axis = [_tick(left + step * unit, y, step) for step in range(0, total + 1, _spacing(total))]
    axis.append(tag("text", "hardware step", x=0, y=f"{y + 14:.0f}", class_="dim"))
    width, height = left + total * unit + 60, y + 20
    picture = tag(
        "svg",
        *axis,
        *parts,
        viewBox=f"0 0 {width:.0f} {height:.0f}",
        width=f"{width:.0f}",
        height=f"{height:.0f}",
        role="img",
        aria_label="spike raster by hardware step",
    )
    return tag("div", picture, class_="scroll", tabindex="0")


def raster_rows(facts: ReportFacts, sample: int) -> list[tuple[str, str, np.ndarray, int]]:
    """What is drawn of a sample: (group, name, (neurons, T) of 0 and 1, depth)."""
    rows: dict[tuple[str, str], list[str]] = {}
    grouped = spiking(facts)
    merge = sum(map(len, grouped.values())) > MOST_ROWS
    for group, names in grouped.items():
        for name in names:
            shown = re.sub(r"\.experts\.\w+\.", ".experts.*.", name) if merge else name
            rows.setdefault((group, shown), []).append(name)
    found = []
    for (group, shown), names in rows.items():
        parts = [facts.spikes[n][sample].reshape(facts.spikes[n].shape[1], -1) for n in names]
        found.append((group, shown, np.concatenate(parts, axis=1).T, facts.depth.get(names[0], 0)))
    return found


def _pool(spikes: np.ndarray, rows: int) -> np.ndarray:
    """(neurons, T) -> (at most `rows`, T): the share of the neurons behind a pixel that spiked."""
    if len(spikes) <= rows:
        return spikes.astype(np.float64)
    return np.stack([part.mean(axis=0) for part in np.array_split(spikes, rows)])


def population_colour(name: str) -> str:
    """The colour that a population is drawn in: its expert's, or its group's."""
    expert = re.search(r"\.moe(?:\.links\.\d+)?\.experts\.(\d+)\.", name)
    return expert_colour(int(expert[1])) if expert else GROUP_COLOURS[group_of(name)]


def _spacing(total: int) -> int:
    return next(step for step in (1, 2, 5, 10, 20, 50, 100, 10**9) if total / step <= 14)


def _tick(x: float, height: float, step: int) -> Html:
    line = tag("line", x1=f"{x:.1f}", x2=f"{x:.1f}", y1=6, y2=f"{height:.0f}", class_="line")
    word = tag(
        "text", step, x=f"{x:.1f}", y=f"{height + 14:.0f}", text_anchor="middle", class_="dim"
    )
    return Html(line + word)
