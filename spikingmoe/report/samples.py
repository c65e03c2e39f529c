"""Some samples in detail: what the relay cells, the prompt, the router and the neurons did."""

from __future__ import annotations

import numpy as np

from spikingmoe.report.facts import ReportFacts
from spikingmoe.report.markup import Html, join, tag
from spikingmoe.report.pictures import (
    figure,
    legend,
    pixels,
    png_uri,
    prompt_map,
    tinted,
    to_rgb,
    token_map,
)
from spikingmoe.report.raster import raster
from spikingmoe.report.style import OFF_COLOUR, ON_COLOUR, PROMPT_COLOUR, expert_colour
from spikingmoe.report.wording import BACKENDS, label

SHOWN = 6
MOST_STEPS = 8  # maps per row; the raster shows all steps
RELAY, PROMPT = "prompt.relay", "prompt.lif"
CHANNELS = {1: ("",), 2: (" (polarity 0)", " (polarity 1)"),
            3: (" luminance", " red-green", " blue-yellow")}  # fmt: skip


def choose_samples(facts: ReportFacts, shown: int = SHOWN) -> list[int]:
    """Up to two samples that some backend gets wrong, then the first one of each class in turn."""
    labels = np.asarray(facts.labels)
    wrong = np.zeros(len(labels), dtype=bool)
    for prediction in facts.predictions.values():
        wrong |= np.asarray(prediction) != labels
    chosen = [int(i) for i in np.flatnonzero(wrong)[:2]]
    seen = {int(labels[i]) for i in chosen}
    rest = [i for i in range(len(labels)) if i not in chosen]
    for i in rest:
        if len(chosen) < shown and int(labels[i]) not in seen:
            chosen.append(i)
            seen.add(int(labels[i]))
    chosen += [i for i in rest if i not in chosen][: max(shown - len(chosen), 0)]
    return sorted(chosen[:shown])


def silent_tokens(facts: ReportFacts, router: str) -> np.ndarray:
    """(n, T, height, width): tokens whose neurons sent no spike; the gates opened for nothing."""
    spikes = facts.spikes.get(f"{router}.x")
    gates = facts.gates(router)
    return np.zeros(gates.shape[:-1], bool) if spikes is None else ~spikes.astype(bool).any(axis=-1)


def class_name(facts: ReportFacts, index: int) -> str:
    """The name of a class, or its number where there is no name."""
    return facts.classes[index] if 0 <= index < len(facts.classes) else f"class {index}"


def sample_name(facts: ReportFacts, sample: int) -> str:
    """What a sample is called in lists, such as "image 3 (cat)"."""
    return f"image {sample} ({class_name(facts, int(facts.labels[sample]))})"


def samples_section(facts: ReportFacts, prefix: str = "") -> Html:
    """The chooser (radio buttons, no script) and one panel per sample.

    Args:
        prefix: begins the identifiers, where a page shows several runs.
    """
    chosen = choose_samples(facts)
    picks = [
        tag(
            "input",
            type="radio",
            name=f"{prefix}pick",
            id=f"{prefix}pick{k}",
            class_=f"pick pick{k}",
            checked=k == 0,
        )
        for k in range(len(chosen))
    ]
    labels = [
        tag(
            "label",
            pixels(to_rgb(facts.images[i]), "", side=44, photo=True),
            class_name(facts, int(facts.labels[i])),
            for_=f"{prefix}pick{k}",
            class_=f"for{k}",
        )
        for k, i in enumerate(chosen)
    ]
    panels = [
        tag("div", _panel(facts, i), class_=f"sample sample{k}",
            style=f"--photo:url({png_uri(to_rgb(facts.images[i]))})")
        for k, i in enumerate(chosen)
    ]  # fmt: skip
    note = (
        f"{len(chosen)} of the {len(facts.labels)} images recorded: up to two that are answered "
        "wrongly, then the first image of each class. Choose one:"
    )
    return join([
        tag("p", note), *picks, tag("div", *labels, class_="picks"), tag("div", *panels, class_="samples"),
    ])  # fmt: skip


def _panel(facts: ReportFacts, i: int) -> Html:
    name = class_name(facts, int(facts.labels[i]))
    answers = []
    for backend, prediction in facts.predictions.items():
        right = int(prediction[i]) == int(facts.labels[i])
        verdict = tag("span", "right" if right else "wrong", class_="right" if right else "wrong")
        said = class_name(facts, int(prediction[i]))
        answers.append(tag("li", f"{label(backend, BACKENDS)}: ", tag("b", said), " ", verdict))
    parts = [
        tag("h3", f"Image {i}, label {name}"),
        tag("div", figure(pixels(to_rgb(facts.images[i]), f"image {i}", side=128, photo=True), "input"),
            tag("ul", *answers), class_="maps"),
        _relays(facts, i), _prompt(facts, i),
        _routing(facts, i),
        tag("h4", "Spikes of every population"),
        tag("p", "Across: hardware step = depth + time step, so each population works a few steps "
            "after the one before it. Down: neurons; where a pixel stands for several, it is the "
            "stronger the more of them spiked. Graded relays are not drawn. (It scrolls sideways.)", class_="note"),
        raster(facts, i),
    ]  # fmt: skip
    return join(parts)


def _relays(facts: ReportFacts, i: int) -> Html:
    if RELAY not in facts.spikes:
        return tag("p", "This model has no prompt, so there are no relay cells.", class_="missing")
    spikes = facts.spikes[RELAY][i]
    channels = spikes.shape[-1] // 2
    names = CHANNELS.get(channels, tuple(f" {c}" for c in range(channels)))
    rows = []
    for c in range(channels):
        for kind, colour, first in (("ON", ON_COLOUR, 0), ("OFF", OFF_COLOUR, channels)):
            cells = spikes[:MOST_STEPS, ..., first + c]
            maps = [
                figure(pixels(tinted(one, colour), f"{kind} cells, step {t}", side=84), f"t = {t}")
                for t, one in enumerate(cells)
            ]
            title = tag("div", f"{kind}{names[c]}", class_="soft")
            rows.append(tag("div", title, tag("div", *maps, class_="maps")))
    return join([
        tag("h4", "Relay cells: where the image is brighter (ON) or darker (OFF) than around"),
        _cut(len(spikes)), tag("div", *rows, class_="columns wider"),
    ])  # fmt: skip


def _prompt(facts: ReportFacts, i: int) -> Html | None:
    parts: list[Html] = []
    for name in prompts(facts):
        prompt = facts.spikes[name][i]
        title = f"Prompt: {prompt.shape[1]} neurons over {len(prompt)} time steps"
        of_block = "" if name == PROMPT else f" ({name.removesuffix('.prompt.lif')})"
        picture = tag("div", prompt_map(prompt, PROMPT_COLOUR), class_="scroll")
        parts += [tag("h4", title, of_block), picture]
    return join(parts) if parts else None


def prompts(facts: ReportFacts) -> list[str]:
    """The populations of the prompt: one, or with cortical feedback one per block."""
    return [name for name in facts.spikes if name == PROMPT or name.endswith(".prompt.lif")]


def _routing(facts: ReportFacts, i: int) -> Html | None:
    if not facts.routers:
        return None
    words = "One cell per token, over the image."
    maps, experts, steps = [], 0, 0
    several = closed = silent = False
    for router in facts.routers:
        gates = facts.gates(router)[i].astype(bool)
        quiet = silent_tokens(facts, router)[i]
        steps, experts = len(gates), max(experts, gates.shape[-1])
        several |= bool((gates.sum(-1) > 1).any())
        closed |= not gates.any(-1).all()
        silent |= bool(quiet.any())
        pictures = [
            figure(token_map(one, quiet[t], f"{router}, step {t}: expert by token"), f"t = {t}")
            for t, one in enumerate(gates[:MOST_STEPS])
        ]
        maps.append(
            tag("div", tag("h4", tag("code", router)), tag("div", *pictures, class_="grid4"))
        )
    words += " A token with several experts is split between them." if several else ""
    words += " A dashed cell: no gate is open." if closed else ""
    if silent:
        words += (
            " Dots in place of a cell: the token sent no spike, so its expert gets a bias at most."
        )
    colours = {f"expert {e}": expert_colour(e) for e in range(experts)}
    return join([
        tag("h4", "Tokens to experts"), legend(colours), tag("p", words, class_="note"), _cut(steps),
        tag("div", *maps, class_="columns wider"),
    ])  # fmt: skip


def _cut(steps: int) -> Html | None:
    if steps <= MOST_STEPS:
        return None
    return tag("p", f"The first {MOST_STEPS} of {steps} time steps.", class_="note")
