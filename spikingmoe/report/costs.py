"""Energy: by part of the network, counts, and where the prices come from. Estimates throughout."""

from __future__ import annotations

from typing import Any

from spikingmoe.report.facts import ReportFacts
from spikingmoe.report.markup import Html, bars, join, table, tag
from spikingmoe.report.parts import merged_parts
from spikingmoe.report.plots import energy_plot
from spikingmoe.report.style import expert_colour
from spikingmoe.report.wording import (
    MODELS,
    band,
    count,
    energy,
    label,
    look,
    mapping,
    number,
    sequence,
)

PARTS_NOTE = (
    "Over all blocks and links: experts.N, the neurons behind the gates of expert N; router, scores, "
    "comparators and gates, and the ANDs in front of the experts, which every spike reaches; mlp, the "
    "neurons that read the stream for the experts, shared experts and dense MLPs."
)


def energy_section(facts: ReportFacts) -> Html | None:
    """One part per cost table; None if nothing was estimated."""
    tables = {k: v for k, v in mapping(facts.metrics, "energy").items() if mapping(v)}
    if not tables:
        return None
    intro = (
        "Counted operations times a table of costs per operation, per image. These are estimates; "
        "nothing here was measured on a chip. The line over a bar is the band from the low to the "
        "high cost."
    )
    plot = energy_plot(facts)
    return join(
        [
            tag("p", intro),
            join([plot, tag("p", PARTS_NOTE, class_="note")]) if plot else None,
            *(_table(name, mapping(models)) for name, models in tables.items()),
        ]
    )


def _table(name: str, models: dict[str, Any]) -> Html:
    reports = {k: v for k, v in models.items() if band(look(v, "energy_pj_per_sample"))}
    if not reports:
        return tag("p", f"{name}: no estimate was recorded.", class_="missing")
    first = next(iter(reports.values()))
    parts = [
        tag("h3", str(look(first, "title") or name), " ", tag("code", name)),
        tag("p", tag("b", "Boundary: "), str(look(first, "boundary") or "not stated"), ". ",
            _samples(first)),
        _totals(reports),
        tag("details", tag("summary", "By part of the network, in figures"),
            tag("div", *_by_part(reports), class_="columns parts")),
        tag("h4", "Operations counted per image"), _counts(reports),
        _prices(first),
    ]  # fmt: skip
    notes = {
        label(k, MODELS): [str(c) for c in sequence(look(v, "caveats"))] for k, v in reports.items()
    }
    if any(notes.values()):
        parts.append(tag("h4", "Caveats"))
        said: set[str] = set()
        items = []
        for model, caveats in notes.items():
            for caveat in caveats:
                if caveat not in said:
                    said.add(caveat)
                    shared = sum(caveat in c for c in notes.values()) > 1 or len(notes) == 1
                    items.append(tag("li", caveat if shared else f"{model}: {caveat}"))
        parts.append(tag("ul", *items))
    for model, report in list(reports.items())[1:]:
        boundary = look(report, "boundary")
        if boundary and boundary != look(first, "boundary"):
            parts.append(
                tag("p", f"Boundary of the {label(model, MODELS)}: {boundary}.", class_="note")
            )
    return join(parts)


def _samples(report: dict[str, Any]) -> str:
    samples = number(look(report, "samples"))
    return (
        "" if samples is None else f"Mean over {count(samples)} images (floating-point reference)."
    )


def _totals(reports: dict[str, Any]) -> Html:
    values = {k: band(look(v, "energy_pj_per_sample")) for k, v in reports.items()}
    bands = [(b[1], b[2]) for b in values.values() if b]
    rows = [(label(k, MODELS), b[0], f"{energy(b[0])} ({energy(b[1])} to {energy(b[2])})")
            for k, b in values.items() if b]  # fmt: skip
    return bars(
        rows,
        most=max(max(high for _, high in bands), max(r[1] for r in rows)),
        bands=bands,
        colours=[expert_colour(5)] * len(rows),
    )


def _by_part(reports: dict[str, Any]) -> list[Html]:
    """Bars of every model on one scale, so that lengths compare."""
    split = {k: merged_parts(mapping(v, "by_part")) for k, v in reports.items()}
    most = max((b[2] for parts in split.values() for b in parts.values()), default=1.0)
    columns = []
    for model, parts in split.items():
        rows = [(name, b[0], energy(b[0], like_pj=most / 50)) for name, b in parts.items()]
        chart = bars(rows, most=most, bands=[(b[1], b[2]) for b in parts.values()])
        columns.append(tag("div", tag("h4", label(model, MODELS)), chart))
    return columns


def _counts(reports: dict[str, Any]) -> Html:
    operations: dict[str, None] = {}
    for report in reports.values():
        operations.update(dict.fromkeys(mapping(report, "counts_per_sample")))
    rows = []
    for operation in operations:
        counted = [count(look(r, "counts_per_sample", operation)) for r in reports.values()]
        rows.append((operation.replace("_", " "), *counted))
    totals = [count(look(r, "synops_per_sample")) for r in reports.values()]
    rows.append((tag("b", "synaptic operations"), *totals))
    return table(["operation", *(label(k, MODELS) for k in reports)], rows)


def _prices(report: dict[str, Any]) -> Html:
    rows = []
    for operation, entry in mapping(report, "by_operation").items():
        share = band(look(entry, "energy_pj_per_sample"))
        spent = "-" if share is None else energy(share[0])
        if share and share[2] > share[1]:
            spent += f" ({energy(share[1])} to {energy(share[2])})"
        words = [str(look(entry, key) or "-") for key in ("grade", "source", "note")]
        rows.append((operation.replace("_", " "), spent, *words))
    for operation, reason in mapping(report, "not_priced").items():
        rows.append((operation.replace("_", " "), "not priced", "-", "-", str(reason)))
    header = ["operation", "energy per image", "grade", "source", "note"]
    summary = tag("summary", "Where each price comes from: source and grade")
    return tag("details", summary, tag("div", table(header, rows), class_="wide"))
