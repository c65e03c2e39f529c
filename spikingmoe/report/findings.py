"""What the numbers of a run say, in plain words; good and bad news alike."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from spikingmoe.report.wording import (
    BACKENDS,
    MODELS,
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


@dataclass(frozen=True)
class Finding:
    """One sentence; `kind` is good, bad, warn or plain."""

    kind: str
    text: str


def main_table(metrics: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(what, number, remark) of everything that `metrics` holds; also what the commands print."""
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
            what = f"accuracy on the whole test set, {label(name, BACKENDS)}"
            rows.append((what, percent(value), _images(value, tested)))
    for name, value in mapping(metrics, "accuracy", "twins").items():
        rows.append((f"accuracy, {label(name, MODELS)}", percent(value), _images(value, tested)))
    for name, entry in mapping(metrics, "verify").items():
        if name in ("float", "fixed"):
            arithmetic = "floating" if name == "float" else "fixed"
            compared, differing = count(look(entry, "compared")), count(look(entry, "differing"))
            samples_text = f"{count(look(entry, 'samples'))} images"
            text = f"{compared} compared, {differing} differ"
            rows.append((f"same spikes, {arithmetic} point", text, samples_text))
    for name, value in mapping(metrics, "synops_per_sample").items():
        what = "multiply-accumulates" if name == "relu" else "synaptic operations triggered"
        rows.append((f"{what}, {label(name, MODELS)}", count(value), "per image"))
    for name, value in mapping(metrics, "energy_pj_per_sample").items():
        found = energy_band(metrics, name)
        remark = "per image"
        if found and found[2] > found[1]:
            remark += f", {energy(found[1])} to {energy(found[2])}"
        usual = band(value)
        text = energy(usual[0]) if usual else UNKNOWN
        rows.append((f"estimated energy, {label(name, MODELS)}", text, remark))
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
    return f"{count(samples)} images; 95 % interval {100 * low:.1f} to {100 * high:.1f} %"


def _accuracy(metrics: dict[str, Any]) -> list[Finding]:
    found: list[Finding] = []
    accuracy, test = mapping(metrics, "accuracy"), mapping(metrics, "accuracy", "test")
    backends = {k: number(v) for k, v in accuracy.items() if k not in ("samples", "test", "twins")}
    backends = {k: v for k, v in backends.items() if v is not None}
    if backends:
        parts = [f"{label(k, BACKENDS)} {percent(v)}" for k, v in backends.items()]
        text = f"Accuracy on {count(accuracy.get('samples'))} images: {'; '.join(parts)}."
        if len(backends) > 1 and len(set(backends.values())) > 1:
            text += " They are not the same."
        found.append(Finding("plain", text))
    own, samples = number(test.get("torch")), number(test.get("samples"))
    if own is not None:
        text = f"On the whole test set ({count(samples)} images) torch reaches {percent(own)}."
        found.append(Finding("plain", text))
    else:
        own, samples = backends.get("torch"), number(accuracy.get("samples"))
    for name, value in mapping(metrics, "accuracy", "twins").items():
        other = number(value)
        if other is None or own is None:
            continue
        twin, points = label(name, MODELS), 100 * (own - other)
        if abs(points) < 0.05:
            found.append(Finding("plain", f"The {twin} is as accurate ({percent(other)})."))
            continue
        text = f"The {twin} reaches {percent(other)}: {abs(points):.1f} points "
        text += "less than this model." if points > 0 else "more than this model."
        if samples and samples >= 1:
            spread = math.sqrt((own * (1 - own) + other * (1 - other)) / samples)
            if abs(own - other) < 2 * spread:
                text += f" {count(samples)} images cannot tell the two apart with certainty."
        found.append(Finding("good" if points > 0 else "warn", text))
    return found


def _same_spikes(metrics: dict[str, Any]) -> list[Finding]:
    found: list[Finding] = []
    for name, words in (("float", "floating point"), ("fixed", "fixed point")):
        entry = look(metrics, "verify", name)
        compared, differing = number(look(entry, "compared")), number(look(entry, "differing"))
        if compared is None or differing is None:
            continue
        numbers = f"{count(compared)} compared, {count(differing)} differ"
        if compared == 0:
            found.append(Finding("bad", f"In {words} nothing was compared: nothing is shown."))
        elif differing == 0:
            found.append(Finding("good", f"Same spikes in {words}: {numbers}."))
        else:
            found.append(Finding("bad", f"Not the same spikes in {words}: {numbers}."))
    return found


def _operations(metrics: dict[str, Any]) -> list[Finding]:
    found: list[Finding] = []
    values = {k: number(v) for k, v in mapping(metrics, "synops_per_sample").items()}
    own = values.get("moe")
    if own is None:
        return found
    for name in ("dense", "relu"):
        other = values.get(name)
        if not other:
            continue
        what = "multiply-accumulates" if name == "relu" else "synaptic operations"
        text = (
            f"The mixture triggers {count(own)} synaptic operations per image, {_times(own, other)}"
        )
        text += f" the {count(other)} {what} of the {label(name, MODELS)}"
        text += ": more work, not less." if own > other else "."
        found.append(Finding("good" if own < other else "warn", text))
    return found


def _energy(metrics: dict[str, Any]) -> list[Finding]:
    found: list[Finding] = []
    for name, models in mapping(metrics, "energy").items():
        own = band(look(models, "moe", "energy_pj_per_sample"))
        if own is None:
            continue
        title = look(models, "moe", "title") or name
        text = f"Energy per image, an estimate and not a measurement ({title}): {_range(own)}."
        kind = "plain"
        for twin in ("dense", "relu"):
            other = band(look(models, twin, "energy_pj_per_sample"))
            if other is None or other[0] <= 0:
                continue
            verdict, fair = _verdict(own, other, same_boundary=twin == "dense")
            text += f" {label(twin, MODELS).capitalize()}: {_range(other)}; {verdict}."
            if twin == "dense":
                kind = fair
        if boundary := look(models, "moe", "boundary"):
            text += f" Boundary: {boundary}."
        found.append(Finding(kind, text))
    return found


def _verdict(own: Band, other: Band, *, same_boundary: bool) -> tuple[str, str]:
    """How two bands compare: end by end if the same costs make both, else as intervals."""
    dearer = own[0] > other[0]
    word = "dearer" if dearer else "cheaper"
    text = f"the mixture is {word}, costing {_times(own[0], other[0])} as much"
    if same_boundary:
        certain = all((a > b) == dearer for a, b in zip(own, other, strict=True))
        text += (
            ", at the low, usual and high costs alike"
            if certain
            else (", but at another end of the band the order turns round")
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
