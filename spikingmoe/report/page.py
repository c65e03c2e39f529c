"""The report page: one HTML file with its scripts inside; it needs no network and no other file."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from spikingmoe.report.activity import experts_section, rates_section
from spikingmoe.report.checks import latency_section, verification_section
from spikingmoe.report.comparison import comparison_section
from spikingmoe.report.costs import energy_section
from spikingmoe.report.facts import ReportFacts
from spikingmoe.report.findings import TABLE_NOTE, Finding, findings, main_table
from spikingmoe.report.maps import maps_section
from spikingmoe.report.markup import Html, join, table, tag
from spikingmoe.report.placement import mapping_section
from spikingmoe.report.plots import accuracy_plot, pareto_plot
from spikingmoe.report.plots.scripts import policy, scripts
from spikingmoe.report.samples import choose_samples, samples_section
from spikingmoe.report.settings import settings_section, training_section
from spikingmoe.report.style import CSS, chooser_css, runs_css
from spikingmoe.report.wording import look, plain

Section = Callable[[ReportFacts], Html | None]
NO_SCRIPT = tag(
    "noscript",
    tag("p", "Scripts are off, so the interactive plots are not drawn. Their values are in the tables that "
        "open under them; everything else is here as it is with scripts.", class_="missing"),
)  # fmt: skip


def build_page(facts: ReportFacts) -> str:
    """The report of one run as a self-contained HTML page.

    What a run did not record is left out with a sentence that says which command produces it.
    """
    return _page(_title(facts), join([_head(facts, ""), *_sections(facts, "")]), [facts])


def compare_page(runs: Mapping[str, ReportFacts]) -> str:
    """The reports of several runs, by name, as one page: beside each other, then each one whole.

    Raises:
        ValueError: fewer than two runs.
    """
    if len(runs) < 2:
        raise ValueError(f"a comparison of {len(runs)} runs; use at least 2, or build_page")
    title = f"SpikingMoE: report of {len(runs)} runs"
    picks = [
        tag("input", type="radio", name="run", id=f"run{i}", class_="runpick", checked=i == 0)
        for i in range(len(runs))
    ]
    names = [tag("label", name, for_=f"run{i}") for i, name in enumerate(runs)]
    wholes = [
        tag("div", _head(facts, f"run{i}-", name), *_sections(facts, f"run{i}-"),
            class_=f"run run{i}")
        for i, (name, facts) in enumerate(runs.items())
    ]  # fmt: skip
    body = join([
        tag("header", tag("h1", title)), comparison_section(runs), *picks,
        tag("div", tag("span", "Run shown below:"), *names, class_="runnames"), tag("div", *wholes, class_="runs"),
    ])  # fmt: skip
    return _page(title, body, list(runs.values()))


def _page(title: str, body: Html, runs: list[ReportFacts]) -> str:
    samples = max(len(choose_samples(facts)) for facts in runs)
    head = tag(
        "head", tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy()),
        tag("title", title),
        tag("style", Html(CSS + chooser_css(samples) + runs_css(len(runs)))),
    )  # fmt: skip
    whole = tag("html", head, tag("body", tag("main", NO_SCRIPT, body), scripts()), lang="en")
    return f"<!DOCTYPE html>\n{whole}\n"


def _sections(facts: ReportFacts, prefix: str) -> list[Html]:
    def samples(facts: ReportFacts) -> Html | None:
        shown = len(facts.labels) and facts.spikes
        return samples_section(facts, prefix) if shown else None

    return [
        _section(f"{prefix}{id_}", title, facts, build, command)
        for id_, title, build, command in (
            ("samples", "Images, spikes, experts", samples, "report RUN"),
            ("maps", "Router maps", _recorded(maps_section), "report RUN"),
            ("experts", "Experts", _recorded(experts_section), "report RUN"),
            ("rates", "Firing rates", _recorded(rates_section), "report RUN"),
            ("energy", "Energy", energy_section, "energy RUN"),
            ("verification", "Verification", verification_section, "verify RUN"),
            ("latency", "Latency", latency_section, "verify RUN"),
            ("mapping", "Mapping", mapping_section, "map PROGRAM"),
            ("training", "Training", training_section, "train"),
            ("settings", "Configuration", settings_section, "demo"),
        )
    ]


def _title(facts: ReportFacts) -> str:
    preset = look(facts.metrics, "config", "model", "preset")
    return "SpikingMoE: report of one run" + (f" ({plain(preset)})" if preset else "")


def _head(facts: ReportFacts, prefix: str, name: str | None = None) -> Html:
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
    names = {"samples": "Images", "maps": "Router maps", "experts": "Experts", "rates": "Firing rates", "energy": "Energy",
             "verification": "Verification", "latency": "Latency", "mapping": "Mapping",
             "training": "Training", "settings": "Configuration"}  # fmt: skip
    return tag(
        "header", tag("h1", _title(facts)) if name is None else tag("h2", name), tag("p", what),
        tag("div", _list(said),
            tag("div", table(["what", "number", ""], rows, caption=TABLE_NOTE), class_="summary"),
            class_="columns wider")
        if rows else _missing("Results", "demo"),
        accuracy_plot(facts) or _missing("A plot of accuracies", "energy RUN"),
        pareto_plot({name or "this run": facts.metrics})
        or _missing("A plot of accuracy against cost", "energy RUN"),
        tag("nav", *(tag("a", words, href=f"#{prefix}{id_}") for id_, words in names.items())),
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


def _recorded(build: Section) -> Section:
    """Only if spikes were recorded."""
    return lambda facts: build(facts) if facts.spikes and len(facts.labels) else None
