"""The routing benchmark's answer as rows of JSON, as tables on the terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict

from benchmarks.intervals import RULE, Comparison, Interval
from benchmarks.routing_study.answer import AGAINST, EQUAL_SYNOPS, NEAREST, Answer, Row
from benchmarks.routing_study.variants import DENSE, DENSE_PARAMETERS

SHOWN = 12  # missing runs named in the notes; the JSON file has all
Column = tuple[str, Callable[[Row], str]]


def accuracy_columns() -> list[Column]:
    """Accuracy and the comparisons: the answer."""
    return [
        ("variant", lambda r: r.name),
        ("seeds", lambda r: str(len(r.seeds))),
        ("validation %", lambda r: _percent(r.validation)),
        ("test %", lambda r: _percent(r.test)),
        ("synops k", lambda r: _thousands(r.synops.mean) if r.synops else "cannot be lowered"),
        ("against dense 1x", lambda r: _difference(r, DENSE)),
        ("at equal parameters", lambda r: _difference(r, DENSE_PARAMETERS)),
        ("at equal synops", lambda r: _difference(r, EQUAL_SYNOPS)),
    ]


def cost_columns() -> list[Column]:
    """Parameters, operations by part, the experts' use."""

    def part(name: str) -> Callable[[Row], str]:
        return lambda r: _thousands(getattr(r.parts, name)) if r.parts else ""

    def figure(name: str, form: str) -> Callable[[Row], str]:
        return lambda r: "" if (v := r.figures[name]) is None else format(v, form)

    return [
        ("variant", lambda r: r.name),
        ("params", figure("parameters", ",.0f")),
        ("active", figure("active_parameters", ",.0f")),
        ("synops k", part("total")),
        ("experts", part("experts")),
        ("router", part("router")),
        ("prompt", part("prompt")),
        ("rest", part("rest")),
        ("graded", part("graded")),
        ("energy nJ", figure("energy_nj", ",.1f")),
        ("open", figure("open_experts", ".2f")),
        ("entropy", figure("load_entropy", ".3f")),
        ("dead", lambda r: _dead(r)),
        ("train s", figure("train_seconds", ",.0f")),
    ]


def cells(rows: Sequence[Row], columns: Sequence[Column]) -> list[dict[str, str]]:
    """One dictionary of texts per row."""
    return [{title: text(row) for title, text in columns} for row in rows]


def notes(answer: Answer, facts: Mapping[str, object], missing: Sequence[str]) -> list[str]:
    """What one must know to read the tables, a sentence each."""
    rows = answer.rows
    lines = [f"{name}: {value}" for name, value in facts.items()]
    lines += [
        "test %: mean over seeds with its 95 % t-interval; test images only give the final figure, "
        "settings are chosen by validation",
        f"differences of test accuracy in percentage points with the 95 % t-interval over seeds; {RULE}",
        *(f"{_TITLES[key]}: {about}" for key, about in AGAINST.items() if key in _TITLES),
        "synops: synaptic operations per test image, counted from spikes of the lowered network, "
        "graded ones included; experts: what reaches the neurons of experts or of a dense MLP; rest: "
        "stem, attention, residual stream and head; energy: an estimate by Horowitz's table",
    ]
    told = sum(
        isinstance(c, Comparison) and c.verdict in ("better", "worse")
        for row in rows
        if not row.is_dense
        for key, c in row.comparisons.items()
        if key != NEAREST
    )
    kept = sum(p < 0.05 for (_, key), p in answer.adjusted.items() if key != NEAREST)
    tests = sum(key != NEAREST for _, key in answer.adjusted)
    lines.append(
        f"{tests} comparisons of mixtures: {told} told apart, {kept} of them still with Holm's "
        f"adjustment over the variants (by chance alone up to {0.05 * tests:.1f} are expected)"
    )
    lines += [f"{row.name}: the same run as {', '.join(row.also)}" for row in rows if row.also]
    lines += [f"{row.name}: no synops, {row.refusal}" for row in rows if row.refusal]
    if missing:
        more = f" and {len(missing) - SHOWN} more" if len(missing) > SHOWN else ""
        lines.append(f"not finished: {', '.join(missing[:SHOWN])}{more}")
    chosen = answer.chosen
    if chosen is not None:
        lines.append(
            f"chosen by validation among the mixtures that lower: {chosen.name}; "
            + "; ".join(
                f"{_TITLES[key]} {_difference(chosen, key)}"
                for key in (DENSE, DENSE_PARAMETERS, EQUAL_SYNOPS)
            )
        )
    return lines


_TITLES = {
    DENSE: "against dense 1x",
    DENSE_PARAMETERS: "at equal parameters",
    EQUAL_SYNOPS: "at equal synops",
}


def markdown(rows: Sequence[Row], title: str, lines: Sequence[str]) -> str:
    """Both tables, the variants and the notes as a Markdown page."""
    text = [f"# {title}", ""]
    for heading, columns in (("Accuracy", accuracy_columns()), ("Costs", cost_columns())):
        text += [f"## {heading}", "", _line([c for c, _ in columns])]
        text.append(_line(["---", *["--:"] * (len(columns) - 1)]))
        text += [_line(list(row.values())) for row in cells(rows, columns)]
        text.append("")
    text += ["## Variants", "", *(f"- `{r.name}`: {r.variant.about}" for r in rows), ""]
    text += ["## Notes", "", *(f"- {line}" for line in lines), ""]
    return "\n".join(text)


def row_values(row: Row, answer: Answer) -> dict[str, object]:
    """A row as JSON values; `n` is the number of seeds."""
    comparisons: dict[str, object] = {}
    for key, found in row.comparisons.items():
        if isinstance(found, Comparison):
            adjusted = answer.adjusted.get((row.name, key))
            comparisons[key] = found.as_dict() | {"p_holm": adjusted}
        else:
            comparisons[key] = {"missing": found}
    return {
        "variant": row.name,
        "family": row.variant.family,
        "about": row.variant.about,
        "same_run_as": list(row.also),
        "n": len(row.seeds),
        "seeds": list(row.seeds),
        "test_images": row.images,
        "validation_accuracy": asdict(row.validation),
        "test_accuracy": asdict(row.test),
        "test_accuracy_over_images": {"low": row.wilson[0], "high": row.wilson[1]},
        **row.figures,
        "synops_per_image": asdict(row.synops) if row.synops else None,
        "synops_by_part": asdict(row.parts) if row.parts else None,
        "synops_images": row.synops_images,
        "refusal": row.refusal,
        "nearest_dense_twin": row.nearest,
        "comparisons": comparisons,
    }


def _line(texts: Sequence[str]) -> str:
    return "| " + " | ".join(t.replace("|", "\\|") for t in texts) + " |"


def _percent(interval: Interval) -> str:
    text = f"{100 * interval.mean:.2f}"
    if interval.low is None or interval.high is None:
        return text
    return f"{text} ± {50 * (interval.high - interval.low):.2f}"


def _difference(row: Row, key: str) -> str:
    if key not in row.comparisons:
        return ""
    found = row.comparisons[key]
    if isinstance(found, str):
        return found
    over = found.over_seeds
    text = f"{100 * over.mean:+.2f}"
    if over.low is not None and over.high is not None:
        text += f" [{100 * over.low:+.2f}, {100 * over.high:+.2f}]"
    return f"{text} {found.verdict}"


def _thousands(value: float) -> str:
    return f"{value / 1000:,.1f}"


def _dead(row: Row) -> str:
    dead, experts = row.figures["dead_experts"], row.figures["experts"]
    return "" if dead is None else f"{dead:.1f} of {experts:.0f}"
