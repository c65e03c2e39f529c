"""Whether a program fits a Loihi chip: the figures of `spikingmoe map`, estimates throughout."""

from __future__ import annotations

from spikingmoe.report.facts import ReportFacts
from spikingmoe.report.markup import Html, join, table, tag
from spikingmoe.report.plots import mapping_plot
from spikingmoe.report.wording import count, look, mapping, number, percent, plain, sequence


def mapping_section(facts: ReportFacts) -> Html | None:
    """A table per mapped program and the floor plan; None if nothing was mapped."""
    reports = {k: v for k, v in mapping(facts.metrics, "mapping").items() if mapping(v)}
    if not reports:
        return None
    parts = [tag("p", "Laid out by rule, not by a chip's compiler: estimates.", class_="note")]
    for program, report in reports.items():
        parts.append(tag("h3", tag("code", program), " on ", plain(look(report, "chip"))))
        parts.append(table(["", "value"], _rows(report)))
        parts += [tag("p", plain(problem)) for problem in sequence(look(report, "problems"))]
    return join([*parts, mapping_plot(facts)])


def _rows(report: object) -> list[tuple[str, str]]:
    rows = [
        ("fits one chip", "yes" if look(report, "fits") is True else "no"),
        ("cores", f"{count(look(report, 'cores'))} of {count(look(report, 'cores_per_chip'))}"),
        ("chips", count(look(report, "chips"))),
        ("binding limit", plain(look(report, "binding")).replace("_", " ")),
    ]
    for name, share in mapping(report, "utilisation").items():
        if number(look(share, "mean")) is not None:
            words = f"{percent(look(share, 'mean'))} mean, {percent(look(share, 'largest'))} most"
            rows.append((f"{name.replace('_', ' ')} used per core", words))
    rows += [
        ("messages per sample", count(look(report, "traffic", "messages_per_sample"))),
        ("hops per sample, as placed", count(look(report, "traffic", "hops_per_sample", "placed"))),
    ]
    return rows
