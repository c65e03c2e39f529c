"""Who works how much: experts, routing by class, firing rates."""

from __future__ import annotations

import numpy as np

from spikingmoe.report.facts import ReportFacts
from spikingmoe.report.markup import Html, bars, join, table, tag
from spikingmoe.report.plots import activity_plot, specialisation_plot
from spikingmoe.report.raster import GROUPS, spiking
from spikingmoe.report.samples import class_name, silent_tokens
from spikingmoe.report.style import GROUP_COLOURS, expert_colour
from spikingmoe.report.wording import look, number, percent

MOST_BARS = 90


def experts_section(facts: ReportFacts) -> Html:
    """Load per expert, silent tokens, and which classes go where."""
    if not facts.routers:
        return tag(
            "p", "This model is dense: one expert that is always on, no router.", class_="missing"
        )
    parts: list[Html] = []
    if (silent := number(look(facts.metrics, "experts", "silent_share"))) is not None:
        parts.append(
            tag(
                "p",
                "Gates closed: ",
                tag("b", percent(silent)),
                " of all images, time steps, tokens and experts. Where each token chooses K of E "
                "experts at every step this is 1 - K/E; before a decision that is held, all are closed.",
            )
        )
    loads = [_load(facts, router) for router in facts.routers]
    parts += [
        tag("h3", "Load: the share of all choices that fall on each expert"),
        tag("p", "Dashed: an even load.", class_="note"),
        tag("div", *loads, class_="columns"),
    ]
    if len(facts.labels):
        tables = [_by_class(facts, router) for router in facts.routers]
        parts += [
            specialisation_plot(facts),
            tag(
                "details",
                tag("summary", "Shares by class, a table per router"),
                tag("div", *tables, class_="columns wider"),
            ),
        ]
    return join(parts)


def measured_load(facts: ReportFacts, router: str) -> tuple[np.ndarray, str]:
    """(E,) shares and where they come from: the run's metrics, or the samples recorded here."""
    recorded = look(facts.metrics, "experts", "load", router)
    gates = facts.gates(router)
    if isinstance(recorded, list | tuple) and len(recorded) == gates.shape[-1]:
        values = [number(v) for v in recorded]
        if None not in values:
            return np.array(values, dtype=np.float64), "as the run recorded it"
    counts = gates.reshape(-1, gates.shape[-1]).sum(axis=0)
    return counts / max(counts.sum(), 1), f"over the {len(gates)} images recorded here"


def _load(facts: ReportFacts, router: str) -> Html:
    load, source = measured_load(facts, router)
    gates, silent = facts.gates(router).astype(bool), silent_tokens(facts, router)
    rows = [(f"expert {e}", float(share), percent(float(share))) for e, share in enumerate(load)]
    even = 1.0 / len(load)
    chart = bars(
        rows,
        most=max(float(load.max(initial=0.0)), even) * 1.05,
        mark=even,
        colours=[expert_colour(e) for e in range(len(load))],
    )
    words = f"Tokens that send no spike at a step: {percent(float(silent.mean()))}"
    if gates.shape[1] > 1:
        both = gates[:, 1:].any(axis=-1) & gates[:, :-1].any(axis=-1)
        same = (gates[:, 1:] == gates[:, :-1]).all(axis=-1)
        kept = percent(float(same[both].mean())) if both.any() else "-"
        words += (
            "; of the tokens with an expert at two steps that follow each other, those that keep "
            f"their choice: {kept}"
        )
    return tag(
        "div",
        tag("h4", tag("code", router), f", {source}"),
        chart,
        tag("p", f"{words} (images recorded here).", class_="note"),
    )


def _by_class(facts: ReportFacts, router: str) -> Html:
    gates = facts.gates(router)
    counts = gates.reshape(len(gates), -1, gates.shape[-1]).sum(axis=1)
    labels = np.asarray(facts.labels)
    rows = []
    for label in np.unique(labels):
        members = counts[labels == label].sum(axis=0)
        shares = members / max(members.sum(), 1)
        cells = [_heat(float(share)) for share in shares]
        rows.append((class_name(facts, int(label)), *cells, int((labels == label).sum())))
    header = ["class", *(f"expert {e}" for e in range(gates.shape[-1])), "images"]
    return tag("div", tag("h4", tag("code", router)), table(header, rows))


def _heat(share: float) -> Html:
    """A shaded box: the colour shows through the card, so it works light and dark."""
    colour = f"color-mix(in srgb,var(--accent) {100 * min(share, 1.0) * 0.75:.0f}%,transparent)"
    return tag("span", f"{100 * share:.0f}", class_="heat", style=f"background:{colour}")


def _breakable(name: str) -> Html:
    """A population's name that may break after its dots."""
    first, *rest = name.split(".")
    return tag("code", first, *(part for segment in rest for part in (Html(".<wbr>"), segment)))


def rates_section(facts: ReportFacts) -> Html:
    """Firing rate of every spiking population."""
    left_out = 0
    groups = spiking(facts)
    blocks = []
    total = sum(map(len, groups.values()))
    rates = {n: float(np.mean(facts.spikes[n])) for names in groups.values() for n in names}
    most = max(rates.values(), default=0.0) or 1.0
    for group, names in groups.items():
        shown = names
        if total > MOST_BARS:
            shown = sorted(names, key=lambda n: -rates[n])[: max(MOST_BARS // len(groups), 1)]
            left_out += len(names) - len(shown)
        rows = [(_breakable(name), rates[name], percent(rates[name])) for name in shown]
        colours = [GROUP_COLOURS[group]] * len(rows)
        blocks.append(tag("div", tag("h4", GROUPS[group]), bars(rows, most=most, colours=colours)))
    note = (
        f"Share of (image, time step, neuron) that spiked, over the {len(facts.labels)} images "
        f"recorded here; the longest bar is {percent(most)}. Graded relays are not listed. Gates "
        "fire by design: K of E at each step and token, for rules that choose K."
    )
    if left_out:
        note += f" {left_out} populations with lower rates are left out."
    if not blocks:
        return tag("p", "No spiking population was recorded.", class_="missing")
    plot = activity_plot(facts)
    return join(
        [
            tag("p", note, class_="note"),
            tag("div", *blocks, class_="rates"),
            plot,
        ]
    )
