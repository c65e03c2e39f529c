"""The report page: one HTML file that needs nothing else, no network and no script."""

from __future__ import annotations

from collections.abc import Callable

from spikingmoe.report.activity import experts_section, rates_section
from spikingmoe.report.checks import latency_section, verification_section
from spikingmoe.report.costs import energy_section
from spikingmoe.report.facts import ReportFacts
from spikingmoe.report.findings import TABLE_NOTE, Finding, findings, main_table
from spikingmoe.report.markup import Html, join, table, tag
from spikingmoe.report.samples import choose_samples, samples_section
from spikingmoe.report.settings import settings_section, training_section
from spikingmoe.report.style import CSS, chooser_css
from spikingmoe.report.wording import look, plain

#: Nothing may be fetched or executed, whatever text the data holds.
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

Section = Callable[[ReportFacts], Html | None]


def build_page(facts: ReportFacts) -> str:
    """The report of one run as a self-contained HTML page.

    What a run did not record is left out with a sentence that says which command produces it.
    """
    sections = [
        _section("samples", "Images, spikes, experts", facts, _samples, "report RUN"),
        _section("experts", "Experts", facts, _recorded(experts_section), "report RUN"),
        _section("rates", "Firing rates", facts, _recorded(rates_section), "report RUN"),
        _section("energy", "Energy", facts, energy_section, "energy RUN"),
        _section("verification", "Verification", facts, verification_section, "verify RUN"),
        _section("latency", "Latency", facts, latency_section, "verify RUN"),
        _section("training", "Training", facts, training_section, "train"),
        _section("settings", "Configuration", facts, settings_section, "demo"),
    ]
    head = tag(
        "head", tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=POLICY),
        tag("title", _title(facts)),
        tag("style", Html(CSS + chooser_css(len(choose_samples(facts))))),
    )  # fmt: skip
    body = tag("body", tag("main", _head(facts), *sections))
    return "<!DOCTYPE html>\n" + tag("html", head, body, lang="en") + "\n"


def _title(facts: ReportFacts) -> str:
    preset = look(facts.metrics, "config", "model", "preset")
    return "SpikingMoE: report of one run" + (f" ({plain(preset)})" if preset else "")


def _head(facts: ReportFacts) -> Html:
    kind = (
        "mixtures of spiking experts" if facts.routers else "dense (one expert that is always on)"
    )
    if facts.routers and any(".mlp." in name for name in facts.spikes):
        kind = "partly mixtures of spiking experts, partly dense"
    what = (
        f"A spike-driven vision transformer whose MLPs are {kind}: trained, and lowered to "
        "populations of spiking neurons."
    )
    said = findings(facts.metrics)
    rows = main_table(facts.metrics)
    names = {"samples": "Images", "experts": "Experts", "rates": "Firing rates", "energy": "Energy",
             "verification": "Verification", "latency": "Latency", "training": "Training",
             "settings": "Configuration"}  # fmt: skip
    return tag(
        "header", tag("h1", _title(facts)), tag("p", what),
        tag("div", _list(said),
            tag("div", table(["what", "number", ""], rows, caption=TABLE_NOTE), class_="summary"),
            class_="columns wider")
        if rows else _missing("Results", "demo"),
        tag("nav", *(tag("a", name, href=f"#{id_}") for id_, name in names.items())),
    )  # fmt: skip


def _list(said: list[Finding]) -> Html | None:
    if not said:
        return None
    items = []
    for finding in said:
        note = tag("div", finding.note, class_="note") if finding.note else None
        items.append(tag("li", finding.text, note, class_=finding.kind))
    return tag("ul", *items, class_="findings")


def _section(id_: str, title: str, facts: ReportFacts, build: Section, command: str) -> Html:
    body = build(facts)
    return tag(
        "section", tag("h2", title), _missing(title, command) if body is None else body, id=id_
    )


def _missing(title: str, command: str) -> Html:
    whole = (
        None
        if command == "demo"
        else join([", or ", tag("code", "spikingmoe demo"), " (everything)"])
    )
    return tag(
        "p",
        f"{title}: not part of this run. It comes from ",
        tag("code", f"spikingmoe {command}"),
        whole,
        ".",
        class_="missing",
    )


def _samples(facts: ReportFacts) -> Html | None:
    return samples_section(facts) if len(facts.labels) and facts.spikes else None


def _recorded(build: Section) -> Section:
    """Only if spikes were recorded."""
    return lambda facts: build(facts) if facts.spikes and len(facts.labels) else None
