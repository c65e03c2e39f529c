"""What the numbers of a run say, in plain words; good and bad news alike."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from spikingmoe.report.wording import (
    BACKENDS,
    MODELS,
    PAIRS,
    UNKNOWN,
    band,
    count,
    energy,
    interval,
    label,
    look,
    mapping,
    number,
    percent,
)

Band = tuple[float, float, float]
TABLE_NOTE = (
    "Operations and energy per image. Ranges: 95 % intervals of accuracies (Wilson), low to high cost "
    "of energies, which are estimates."
)


@dataclass(frozen=True)
class Finding:
    """A sentence or two; `kind` is good, bad, warn or plain; `note` is what limits them."""

    kind: str
    text: str
    note: str = ""


def main_table(metrics: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(what, number, remark) of everything that `metrics` holds; `TABLE_NOTE` says how to read it."""
    rows: list[tuple[str, str, str]] = []
    samples = number(look(metrics, "accuracy", "samples"))
    for name, value in mapping(metrics, "accuracy").items():
        if name not in ("samples", "test", "twins"):
            rows.append(
                (f"accuracy, {label(name, BACKENDS)}", percent(value), _images(value, samples))
            )
    tested = number(look(metrics, "accuracy", "test", "samples"))
    for name, value in mapping(metrics, "accuracy", "test").items():
        if name != "samples":
            what = f"accuracy, all test images, {label(name, BACKENDS)}"
            rows.append((what, percent(value), _images(value, tested)))
    for name, value in mapping(metrics, "accuracy", "twins").items():
        rows.append((f"accuracy, {label(name, MODELS)}", percent(value), _images(value, tested)))
    for name, words in PAIRS.items():
        if (entry := look(metrics, "verify", name)) is not None:
            compared, differing = count(look(entry, "compared")), count(look(entry, "differing"))
            samples_text = f"{count(look(entry, 'samples'))} images"
            rows.append(
                (f"spikes, {words}", f"{compared} compared, {differing} differ", samples_text)
            )
    for name, value in mapping(metrics, "synops_per_sample").items():
        what = (
            "multiply-accumulates" if name in ("relu", "quantised_relu") else "synaptic operations"
        )
        rows.append((f"{what}, {label(name, MODELS)}", count(value), ""))
    for name, value in mapping(metrics, "energy_pj_per_sample").items():
        found = energy_band(metrics, name)
        remark = ""
        if found and found[2] > found[1]:
            remark = f"{energy(found[1])} to {energy(found[2])}"
        usual = band(value)
        text = energy(usual[0]) if usual else UNKNOWN
        rows.append((f"estimated energy, {label(name, MODELS)}", text, remark))
    if (silent := number(look(metrics, "experts", "silent_share"))) is not None:
        rows.append(
            ("experts silent (gate closed)", percent(silent), "of image x step x token x expert")
        )
    if (silent := number(look(metrics, "experts", "whole_expert_silent_share"))) is not None:
        rows.append(
            ("experts silent (no spike at all)", percent(silent), "of image x step x expert")
        )
    if (first := number(look(metrics, "latency_steps", "first_sample"))) is not None:
        every = count(look(metrics, "latency_steps", "every"))
        rows.append(
            ("first answer after", f"{count(first)} steps", f"then one image every {every}")
        )
    return rows


def findings(metrics: dict[str, Any]) -> list[Finding]:
    """The findings that the metrics allow, in the order of the chain."""
    return [*_accuracy(metrics), *_same_spikes(metrics), *_operations(metrics), *_energy(metrics)]


def energy_band(metrics: dict[str, Any], model: str) -> Band | None:
    """The band of `energy_pj_per_sample[model]`: its own, or that of the table it was taken from."""
    own = band(look(metrics, "energy_pj_per_sample", model))
    if own is None or own[1] != own[2]:
        return own
    table = _table_of(metrics, model)
    return band(look(metrics, "energy", table, model, "energy_pj_per_sample")) if table else own


def _table_of(metrics: dict[str, Any], model: str) -> str | None:
    own = band(look(metrics, "energy_pj_per_sample", model))
    for name, models in mapping(metrics, "energy").items():
        other = band(look(models, model, "energy_pj_per_sample"))
        if own and other and math.isclose(own[0], other[0], rel_tol=1e-9):
            return name
    return None


def _images(value: object, samples: float | None) -> str:
    share = number(value)
    if share is None or samples is None or samples < 1 or not 0 <= share <= 1:
        return ""
    low, high = interval(share, samples)
    return f"{count(samples)} images, {100 * low:.1f} to {100 * high:.1f} %"


def _accuracy(metrics: dict[str, Any]) -> list[Finding]:
    accuracy, test = mapping(metrics, "accuracy"), mapping(metrics, "accuracy", "test")
    shares = _shares(accuracy)
    sentences = []
    if shares:
        said = ", ".join(f"{label(k, BACKENDS)} {percent(v)}" for k, v in shares.items())
        sentences.append(f"Accuracy on {count(accuracy.get('samples'))} images: {said}.")
    if tested := _shares(test):
        said = ", ".join(f"{label(k, BACKENDS)} {percent(v)}" for k, v in tested.items())
        sentences.append(f"On the whole test set of {count(test.get('samples'))}: {said}.")
    found = [Finding("plain", " ".join(sentences))] if sentences else []
    own, samples = tested.get("torch"), number(test.get("samples"))
    if own is None:
        own, samples = shares.get("torch"), number(accuracy.get("samples"))
    twins = _shares(mapping(accuracy, "twins"))
    if own is None or not twins:
        return found
    said, unclear, kind = [], [], "good"
    for name, other in twins.items():
        twin, points = label(name, MODELS), 100 * (own - other)
        said.append(f"the {twin} reaches {percent(other)} ({_points(points)})")
        spread = 0.0
        if samples and samples >= 1:
            variance = own * (1 - own) + other * (1 - other)
            spread = math.sqrt(max(variance, 0.0) / samples)
        if abs(own - other) < 2 * spread:
            unclear.append(twin)
        elif points < 0:
            kind = "warn"
    text = f"Where this model reaches {percent(own)}, {', '.join(said)}."
    if unclear:
        text += (
            f" {count(samples)} images are too few to tell it from the {' or the '.join(unclear)}."
        )
    return [*found, Finding("plain" if unclear and kind == "good" else kind, text)]


def _shares(values: dict[str, Any]) -> dict[str, float]:
    numbers = {k: number(v) for k, v in values.items() if k != "samples"}
    return {k: v for k, v in numbers.items() if v is not None}


def _points(points: float) -> str:
    if abs(points) < 0.05:
        return "the same"
    return f"{abs(points):.1f} points {'less' if points > 0 else 'more'}"


def _same_spikes(metrics: dict[str, Any]) -> list[Finding]:
    said, kind = [], "good"
    for name, words in PAIRS.items():
        entry = look(metrics, "verify", name)
        compared, differing = number(look(entry, "compared")), number(look(entry, "differing"))
        if compared is None or differing is None:
            continue
        images = count(look(entry, "samples"))
        said.append(
            f"{words} {count(compared)} compared, {count(differing)} differ ({images} images)"
        )
        if compared == 0 or differing != 0 or look(entry, "same") is False:
            kind = "bad"
    pairs = look(metrics, "verify", "pairs")
    unequal = [p for p in pairs if not _same(p)] if isinstance(pairs, list | tuple) else []
    if unequal:
        kind = "bad"
        said.append(
            f"{len(unequal)} of {len(pairs)} comparisons are not free of differences (see below)"
        )
    if not said:
        return []
    start = "Same spikes: " if kind == "good" else "NOT shown to be the same network: "
    return [Finding(kind, start + "; ".join(said) + ".")]


def _same(pair: object) -> bool:
    """What the comparison itself found; it weighs logits and graded messages too."""
    if isinstance(same := look(pair, "same"), bool):
        return same
    return number(look(pair, "differing")) == 0 and number(look(pair, "predictions_differ")) == 0


def _operations(metrics: dict[str, Any]) -> list[Finding]:
    values = _shares(mapping(metrics, "synops_per_sample"))
    own = values.pop("moe", None)
    if own is None:
        return []
    text, kind = f"The mixture triggers {count(own)} synaptic operations per image", "plain"
    if dense := values.get("dense"):
        text += f", {_times(own, dense)} the dense twin's {count(dense)}"
        text += ": more work, not less" if own > dense else ""
        kind = "warn" if own > dense else "good"
    text += "."
    if relu := values.get("relu"):
        text += (
            f" The ReLU twin needs {count(relu)} multiply-accumulates, of which each costs more."
        )
    return [Finding(kind, text)]


def _energy(metrics: dict[str, Any]) -> list[Finding]:
    found: list[Finding] = []
    for name, models in mapping(metrics, "energy").items():
        own = band(look(models, "moe", "energy_pj_per_sample"))
        if own is None:
            continue
        title, boundary = look(models, "moe", "title") or name, look(models, "moe", "boundary")
        text, kind = f"Estimated energy per image, not measured: {_range(own)}.", "plain"
        for twin in ("dense", "relu"):
            other = band(look(models, twin, "energy_pj_per_sample"))
            if other is None or other[0] <= 0:
                continue
            verdict, fair = _verdict(own, other, same_costs=twin == "dense")
            text += f" The {label(twin, MODELS)}: {_range(other)}; {verdict}."
            kind = fair if twin == "dense" else kind
        note = f"{title}. Boundary: {boundary}." if boundary else f"{title}."
        found.append(Finding(kind, text, note))
    return found


def _verdict(own: Band, other: Band, *, same_costs: bool) -> tuple[str, str]:
    """How two bands compare: end by end if the same costs make both, else as intervals."""
    dearer = own[0] > other[0]
    word = "dearer" if dearer else "cheaper"
    text = f"the mixture is {word}, {_times(own[0], other[0])} as much"
    if same_costs:
        certain = all((a > b) == dearer for a, b in zip(own, other, strict=True))
        text += (
            ", at the low, usual and high cost alike"
            if certain
            else ", but at another end of the band the order turns round"
        )
    else:
        certain = own[1] > other[2] or own[2] < other[1]
        text += "" if certain else ", but the bands overlap"
    return text, "plain" if not certain else "warn" if dearer else "good"


def _times(own: float, other: float) -> str:
    return f"{own / other:.2f} times"


def _range(value: Band) -> str:
    if value[1] == value[2]:
        return energy(value[0])
    return f"{energy(value[0])} ({energy(value[1])} to {energy(value[2])})"
