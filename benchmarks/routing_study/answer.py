"""From records to the answer: a row per variant, compared with the dense twins, and the choice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from benchmarks.intervals import (
    Comparison,
    Interval,
    compare,
    holm,
    interpolation_weights,
    t_interval,
)
from benchmarks.routing_study.record import Record, Synops
from benchmarks.routing_study.variants import DENSE, DENSE_PARAMETERS, VARIANTS, Variant
from spikingmoe.analysis.effects import wilson_interval

DENSE_TWINS = {v.name for v in VARIANTS if v.family == "dense"}
EQUAL_SYNOPS, NEAREST = "equal_synops", "nearest_synops"
#: What every mixture is compared with, and what the key means.
AGAINST = {
    DENSE: "dense twin with the width of one expert",
    DENSE_PARAMETERS: "dense twin with as many parameters as the preset's mixture (a variant's own "
    "number stands under params)",
    EQUAL_SYNOPS: "dense twins interpolated at the mixture's measured synaptic operations, per seed, "
    "linear over their logarithm, never extrapolated",
    NEAREST: "the dense twin whose measured synaptic operations are nearest",
}
Records = Mapping[str, Mapping[int, Record]]  # by variant, by seed; trained ones only


@dataclass(frozen=True, kw_only=True)
class Row:
    """One variant over its seeds.

    Attributes:
        also: names of variants that are the same model and recipe.
        validation, test: accuracy over seeds. wilson: of the mean test accuracy, over images.
        synops: per image, over seeds; None with the reason in `refusal`. parts: its mean split.
        comparisons: by the keys of `AGAINST`, a comparison or why there is none.
        nearest: the dense twin that `comparisons[NEAREST]` is about.
        figures: means over seeds of what a `Record` holds under the same names.
    """

    variant: Variant
    also: tuple[str, ...]
    seeds: tuple[int, ...]
    images: int
    validation: Interval
    test: Interval
    wilson: tuple[float, float]
    synops: Interval | None
    parts: Synops | None
    synops_images: int
    refusal: str | None
    comparisons: dict[str, Comparison | str]
    nearest: str | None
    figures: dict[str, float | None]

    @property
    def name(self) -> str:
        """The variant's name."""
        return self.variant.name

    @property
    def is_dense(self) -> bool:
        """Whether it is one of the twins."""
        return self.variant.family == "dense"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The rows, and what was chosen among the mixtures.

    Attributes:
        chosen: the mixture with the best mean validation accuracy, of those that lower and have
            all seeds; None if there is none yet.
        adjusted: (variant, key of `AGAINST`) -> Holm's p over all variants of that key.
    """

    rows: tuple[Row, ...]
    chosen: Row | None
    adjusted: dict[tuple[str, str], float]
    ratios: dict[str, float]


FIGURES = (
    "parameters",
    "active_parameters",
    "load_entropy",
    "dead_experts",
    "experts",
    "open_experts",
    "energy_nj",
    "train_seconds",
)


def answer_of(
    records: Records, variants: Sequence[Variant], same: Mapping[str, str], seeds: Sequence[int]
) -> Answer:
    """Compare what is there; variants without any record are left out."""
    rows = tuple(
        _row(v, records, tuple(n for n, run in same.items() if run == v.name and n != v.name))
        for v in variants
        if same.get(v.name) == v.name and records.get(v.name)
    )
    full = [r for r in rows if not r.is_dense and r.synops and set(r.seeds) >= set(seeds)]
    chosen = max(full, key=lambda r: (r.validation.mean, -_mean(r.synops)), default=None)
    return Answer(rows=rows, chosen=chosen, adjusted=_adjust(rows), ratios=_ratios(chosen, rows))


def _row(variant: Variant, records: Records, also: tuple[str, ...]) -> Row:
    own = records[variant.name]
    ordered = [own[seed] for seed in sorted(own)]
    test = t_interval([_number(r.test_accuracy) for r in ordered])
    images = ordered[0].test_images
    with_synops = [r.synops for r in ordered if r.synops is not None]
    parts = None
    if with_synops:
        means = {
            f.name: float(np.mean([getattr(s, f.name) for s in with_synops]))
            for f in fields(Synops)
        }
        parts = Synops(**means)
    nearest = _nearest(parts, records) if variant.family != "dense" else None
    return Row(
        variant=variant,
        also=also,
        seeds=tuple(sorted(own)),
        images=images,
        validation=t_interval([_number(r.validation_accuracy) for r in ordered]),
        test=test,
        wilson=wilson_interval(round(test.mean * images), images),
        synops=t_interval([s.total for s in with_synops]) if with_synops else None,
        parts=parts,
        synops_images=ordered[0].synops_images,
        refusal=ordered[0].refusal,
        comparisons=_comparisons(variant, records, nearest),
        nearest=nearest,
        figures={name: _mean_of([getattr(r, name) for r in ordered]) for name in FIGURES},
    )


def _comparisons(
    variant: Variant, records: Records, nearest: str | None
) -> dict[str, Comparison | str]:
    own = records[variant.name]
    found: dict[str, Comparison | str] = {}
    for key in (DENSE, DENSE_PARAMETERS):
        if variant.name != key:
            found[key] = _against(own, records.get(key, {}), key)
    if variant.family == "dense":
        return found
    found[EQUAL_SYNOPS] = _at_equal_synops(own, records)
    if nearest is not None:
        found[NEAREST] = _against(own, records[nearest], nearest)
    return found


def _against(own: Mapping[int, Record], other: Mapping[int, Record], name: str) -> Comparison | str:
    seeds = sorted(set(own) & set(other))
    if not seeds:
        return f"no seed in common with {name}"
    return compare(*(np.stack([side[s].right for s in seeds]) for side in (own, other)))


def _at_equal_synops(own: Mapping[int, Record], records: Records) -> Comparison | str:
    """Each seed against the dense twins of that seed."""
    ours, theirs, outside = [], [], []
    for seed, record in sorted(own.items()):
        if record.synops is None:
            return "cannot be lowered"
        twins = _dense_twins(records, seed)
        if not twins:
            continue
        weights = interpolation_weights([x for x, _ in twins], record.synops.total)
        if weights is None:
            outside.append(seed)
            continue
        ours.append(record.right)
        theirs.append(weights @ np.stack([right for _, right in twins]))
    if outside:
        return f"outside the dense twins' range for seeds {', '.join(map(str, outside))}"
    return compare(np.stack(ours), np.stack(theirs)) if ours else "no dense twin of these seeds"


def _dense_twins(records: Records, seed: int) -> list[tuple[float, np.ndarray]]:
    """(synaptic operations, answers) of the dense twins with this seed."""
    return [
        (record.synops.total, record.right)
        for name, by_seed in records.items()
        if name in DENSE_TWINS
        if (record := by_seed.get(seed)) is not None and record.synops is not None
    ]


def _nearest(parts: Synops | None, records: Records) -> str | None:
    if parts is None:
        return None
    distance = {}
    for name, by_seed in records.items():
        totals = [r.synops.total for r in by_seed.values() if r.synops is not None]
        if name in DENSE_TWINS and totals:
            distance[name] = abs(math.log(float(np.mean(totals)) / parts.total))
    return min(distance, key=distance.__getitem__, default=None)


def _adjust(rows: Sequence[Row]) -> dict[tuple[str, str], float]:
    adjusted = {}
    for key in AGAINST:
        p_of = {
            row.name: c.p
            for row in rows
            if not row.is_dense
            and isinstance(c := row.comparisons.get(key), Comparison)
            and c.p is not None
        }
        values = holm(list(p_of.values()))
        adjusted |= {(name, key): p for name, p in zip(p_of, values, strict=True)}
    return adjusted


def _ratios(chosen: Row | None, rows: Sequence[Row]) -> dict[str, float]:
    """Test errors of each dense twin over those of the chosen mixture (above 1: it errs less), and
    the operations of the twin with as many parameters over the mixture's."""
    if chosen is None or chosen.synops is None:
        return {}
    ratios = {}
    for key in (DENSE, DENSE_PARAMETERS, EQUAL_SYNOPS):
        found = chosen.comparisons.get(key)
        if isinstance(found, Comparison) and found.ours < 1:
            ratios[f"errors_vs_{key}"] = (1 - found.theirs) / (1 - found.ours)
    twin = next((r for r in rows if r.name == DENSE_PARAMETERS), None)
    if twin is not None and twin.synops is not None:
        ratios["synops_vs_dense_params"] = twin.synops.mean / chosen.synops.mean
    return ratios


def _number(value: float | None) -> float:
    assert value is not None  # failed runs are sorted out before
    return value


def _mean(interval: Interval | None) -> float:
    return interval.mean if interval is not None else math.inf


def _mean_of(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None
