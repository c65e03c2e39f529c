"""How the run came about: the training curve, the configuration, versions, machine, seconds."""

from __future__ import annotations

from collections.abc import Mapping

from spikingmoe.report.facts import ReportFacts
from spikingmoe.report.markup import Html, bars, join, table, tag
from spikingmoe.report.pictures import legend, line_chart
from spikingmoe.report.wording import look, mapping, number, percent, plain, seconds

TRAINING, VALIDATION = "#0f9d8a", "#d9304f"


def training_section(facts: ReportFacts) -> Html | None:
    """Loss and accuracies by epoch; None without a history."""
    loss = _series(facts, "loss")
    accuracies = {
        "training": _series(facts, "train_accuracy"),
        "validation": _series(facts, "validation_accuracy"),
    }
    accuracies = {name: values for name, values in accuracies.items() if values[0]}
    charts = []
    if accuracies:
        lowest = min(min(y) for _, y in accuracies.values())
        floor = max(f for f in (min(lowest, 0.0), 0.0, 0.6, 0.8) if f <= lowest)
        chart = line_chart(accuracies, [TRAINING, VALIDATION], low=floor, high=1.0, unit="%")
        keys = dict(zip(accuracies, (TRAINING, VALIDATION), strict=False))
        charts.append(tag("div", tag("h4", "accuracy"), legend(keys), chart))
    if loss[0]:
        chart = line_chart(
            {"loss": loss}, [TRAINING], low=min(0.0, *loss[1]), high=max(loss[1]), unit=""
        )
        charts.append(tag("div", tag("h4", "loss"), legend({"training": TRAINING}), chart))
    if not charts:
        return None
    words = f"{len(facts.history)} epochs."
    if "validation" in accuracies:
        last, best = accuracies["validation"][1][-1], max(accuracies["validation"][1])
        words += f" Validation accuracy at the end {percent(last)}, at its best {percent(best)}."
    return join([tag("p", words), tag("div", *charts, class_="columns")])


def settings_section(facts: ReportFacts) -> Html | None:
    """Everything needed to repeat the run; None if nothing was recorded."""
    metrics = facts.metrics
    parts: list[Html] = []
    facts_rows = [
        (key, tag("code", plain(metrics[key]))) for key in ("command", "seed") if key in metrics
    ]
    if facts_rows:
        parts.append(table(["", "value"], facts_rows))
    groups = {
        "Model": look(metrics, "config", "model"),
        "Training": look(metrics, "config", "train"),
        "Versions": look(metrics, "versions"),
        "Machine": look(metrics, "machine"),
    }
    shown = [
        tag("div", tag("h4", name), table(["", "value"], _flat(values)))
        for name, values in groups.items()
        if isinstance(values, Mapping) and values
    ]
    if shown:
        parts.append(tag("div", *shown, class_="columns"))
    spent = {str(k): number(v) for k, v in mapping(metrics, "seconds").items()}
    taken = {k: v for k, v in spent.items() if v is not None}
    if taken:
        rows = [(name, value, seconds(value)) for name, value in taken.items()]
        parts += [
            tag("h4", "Seconds per stage, on this machine"),
            bars(rows, most=max(taken.values())),
        ]
    return join(parts) if parts else None


def _flat(values: Mapping, prefix: str = "") -> list[tuple[str, str]]:
    rows = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", plain(value)))
    return rows


def _series(facts: ReportFacts, name: str) -> tuple[list[float], list[float]]:
    found: tuple[list[float], list[float]] = ([], [])
    for index, record in enumerate(facts.history):
        value, epoch = number(look(record, name)), number(look(record, "epoch"))
        if value is not None:
            found[0].append(float(index) if epoch is None else epoch)
            found[1].append(value)
    return found
