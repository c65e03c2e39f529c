"""One picture of a run, for a README: what one image does in the network."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.patches import Circle, Rectangle

from spikingmoe.report.activity import measured_load
from spikingmoe.report.facts import ReportFacts
from spikingmoe.report.pictures import tinted, to_rgb
from spikingmoe.report.raster import spiking
from spikingmoe.report.samples import PROMPT, RELAY, class_name, prompts, silent_tokens
from spikingmoe.report.style import (
    GROUP_COLOURS,
    OFF_COLOUR,
    ON_COLOUR,
    PROMPT_COLOUR,
    expert_colour,
)

STEPS, MOST_BLOCKS = 4, 3
WIDTH, DPI = 14.0, 100


def overview_png(facts: ReportFacts, sample: int | None = None) -> bytes:
    """A PNG, 1400 pixels wide: input, relay spikes, prompt, tokens to experts, expert load.

    Columns of maps are time steps.

    Args:
        sample: which of the recorded ones; by default, of those that all backends get right, the one
            whose tokens are spread over the experts most evenly.
    """
    if not len(facts.labels) or not facts.spikes:
        raise ValueError("overview: no samples were recorded; run `spikingmoe report RUN`")
    i = _telling(facts) if sample is None else sample
    routers = facts.routers[:MOST_BLOCKS]
    heights = [0.72, 0.72, *(1.0 for _ in routers)] if routers else [1.0, 1.0]
    tall = 2.15 * sum(heights) + 0.5
    figure = Figure(figsize=(WIDTH, tall), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        len(heights), 3, height_ratios=heights, width_ratios=(2.6, 7.6, 3.3), left=0.02, right=0.985,
        top=1 - 0.36 / tall, bottom=0.18 / tall, wspace=0.18, hspace=0.2,
    )  # fmt: skip
    _image(figure.add_subplot(grid[:2, 0]), facts, i)
    if routers and RELAY in facts.spikes:
        _relays(figure, (grid[0, 1], grid[1, 1]), facts, i)
        _prompt(figure.add_subplot(grid[:2, 2]), facts, prompts(facts)[-1], i)
    elif routers:
        _group_rates(figure.add_subplot(grid[0, 1:]), facts)
    else:
        _rates(figure.add_axes((0.36, 0.1, 0.61, 0.8)), facts)
    for row, router in enumerate(routers, start=2):
        words = f"{router}:\nthe experts that\neach token goes to"
        if silent_tokens(facts, router)[i].any():
            words += "\n\ndot: the token\nsends no spike"
        if router == routers[-1] and (more := len(facts.routers) - len(routers)):
            words += f"\n\n{more} more left out"
        axes = figure.add_subplot(grid[row, 0], frame_on=False, xticks=[], yticks=[])
        axes.text(0.5, 0.5, words, ha="center", va="center", fontsize=11)
        _routing(figure, grid[row, 1], facts, router, i)
        _load(figure.add_subplot(grid[row, 2]), facts, router)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _telling(facts: ReportFacts) -> int:
    """The sample, answered rightly if any is, with the largest entropy of expert choices."""
    score = np.zeros(len(facts.labels))
    for router in facts.routers:
        gates = facts.gates(router)
        counts = gates.reshape(len(gates), -1, gates.shape[-1]).sum(axis=1) + 1e-12
        share = counts / counts.sum(axis=1, keepdims=True)
        score -= (share * np.log(share)).sum(axis=1)
    for prediction in facts.predictions.values():
        score[np.asarray(prediction) != np.asarray(facts.labels)] -= 1e3
    return int(score.argmax())


def _image(axes: Axes, facts: ReportFacts, i: int) -> None:
    axes.imshow(to_rgb(facts.images[i]), interpolation="nearest")
    _bare(axes, f"input: {class_name(facts, int(facts.labels[i]))}")


def _relays(
    figure: Figure, places: tuple[SubplotSpec, SubplotSpec], facts: ReportFacts, i: int
) -> None:
    spikes = facts.spikes[RELAY][i]
    half, steps = spikes.shape[-1] // 2, min(len(spikes), STEPS)
    kinds = (("ON", ON_COLOUR, spikes[..., :half]), ("OFF", OFF_COLOUR, spikes[..., half:]))
    for place, (kind, colour, cells) in zip(places, kinds, strict=True):
        grid = place.subgridspec(1, steps, wspace=0.06)
        for t in range(steps):
            axes = figure.add_subplot(grid[0, t])
            axes.imshow(tinted(cells[t].mean(axis=-1), colour), interpolation="nearest")
            _bare(axes, f"t = {t}" if kind == "ON" else "")
            if t == 0:
                axes.set_ylabel(f"{kind} relay cells", fontsize=10.5)


def _prompt(axes: Axes, facts: ReportFacts, name: str, i: int) -> None:
    prompt = facts.spikes[name][i]
    of_block = "" if name == PROMPT else f" of {name.removesuffix('.prompt.lif')}"
    axes.imshow(tinted(prompt, PROMPT_COLOUR), interpolation="nearest", aspect="auto")
    axes.set_xticks(np.arange(prompt.shape[1] + 1) - 0.5, [])
    axes.set_yticks(np.arange(len(prompt)), [f"t = {t}" for t in range(len(prompt))], fontsize=9)
    axes.tick_params(length=0)
    for t in range(len(prompt) - 1):
        axes.axhline(t + 0.5, color="#ddd", linewidth=0.8)
    axes.grid(axis="x", color="#ddd", linewidth=0.8)
    axes.set_title(f"prompt P{of_block}, {prompt.shape[1]} neurons", fontsize=10.5)


def _routing(figure: Figure, place: SubplotSpec, facts: ReportFacts, router: str, i: int) -> None:
    gates, silent = facts.gates(router)[i], silent_tokens(facts, router)[i]
    steps = min(len(gates), STEPS)
    grid = place.subgridspec(1, steps, wspace=0.06)
    for t in range(steps):
        axes = figure.add_subplot(grid[0, t])
        high, wide = gates.shape[1:3]
        axes.imshow(to_rgb(facts.images[i]), extent=(0, wide, high, 0), interpolation="nearest")
        for y, x in np.ndindex(high, wide):
            _token(
                axes,
                x,
                y,
                np.flatnonzero(gates[t, y, x]),
                bool(silent[t, y, x]),
                numbered=max(high, wide) <= 6,
            )
        _bare(axes, "")


def _token(axes: Axes, x: int, y: int, chosen: np.ndarray, silent: bool, *, numbered: bool) -> None:
    for k, e in enumerate(chosen):
        colour, part = expert_colour(int(e)), 0.88 / len(chosen)
        left = x + 0.06 + k * part
        if silent:
            axes.add_patch(Circle((left + part / 2, y + 0.5), 0.1, color=colour))
            continue
        axes.add_patch(
            Rectangle((left, y + 0.06), part, 0.88, color=colour, alpha=0.85, linewidth=0)
        )
        if numbered:
            axes.text(left + part / 2, y + 0.53, str(e), color="white", ha="center", va="center",
                      fontsize=9, fontweight="bold", clip_on=True)  # fmt: skip
    if not len(chosen):
        axes.add_patch(
            Rectangle((x + 0.1, y + 0.1), 0.8, 0.8, fill=False, linestyle=":", color="#999")
        )


def _load(axes: Axes, facts: ReportFacts, router: str) -> None:
    load, _ = measured_load(facts, router)
    names = np.arange(len(load))
    axes.barh(names, load, color=[expert_colour(e) for e in names], height=0.7)
    axes.axvline(1 / len(load), color="#333", linestyle="--", linewidth=1)
    size = 9 if len(load) <= 8 else max(72 / len(load), 4)
    axes.set_yticks(names, [f"expert {e}" for e in names], fontsize=size)
    most = max(float(load.max()), 1 / len(load))
    axes.set_xlim(0, most * 1.25)
    for e, share in enumerate(load):
        axes.text(most * 1.24, e, f"{100 * share:.0f} %", ha="right", va="center", fontsize=size)
    axes.invert_yaxis()
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.set_title("share of all choices (dashed: even)", fontsize=10.5)
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def _rates(axes: Axes, facts: ReportFacts) -> None:
    names = [name for group in spiking(facts).values() for name in group]
    rates = [float(np.mean(facts.spikes[name])) for name in names]
    axes.barh(range(len(names)), rates, color="#3b6ea8")
    axes.set_yticks(range(len(names)), names, fontsize=9)
    axes.invert_yaxis()
    axes.set_title("firing rate (dense model, no router)", fontsize=10.5)
    axes.spines[["top", "right"]].set_visible(False)


def _group_rates(axes: Axes, facts: ReportFacts) -> None:
    groups = spiking(facts)
    for row, (group, names) in enumerate(groups.items()):
        neurons = sum(facts.spikes[name].size for name in names)
        rate = sum(int(facts.spikes[name].sum()) for name in names) / neurons
        axes.barh(row, rate, color=GROUP_COLOURS[group])
    axes.set_yticks(range(len(groups)), list(groups), fontsize=9)
    axes.invert_yaxis()
    axes.set_title("firing rate by part (this model has no prompt)", fontsize=10.5)
    axes.spines[["top", "right"]].set_visible(False)


def _bare(axes: Axes, title: str) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(title, fontsize=10.5)
    for spine in axes.spines.values():
        spine.set_color("#bbb")
