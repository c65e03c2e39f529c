"""`spikingmoe lesion`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jsonargparse import Namespace

from hardware.files import write_bytes
from spikingmoe.analysis import (
    Effect,
    Target,
    choose_targets,
    lesion,
    list_targets,
    measure_lesions,
    read_mixture,
    together,
    wilson_interval,
)
from spikingmoe.analysis.lesion_picture import (
    SIGNIFICANT,
    class_q_values,
    lesion_png,
    total_q_values,
)
from spikingmoe.analysis.reading import routers_of
from spikingmoe.cli.chain import open_data, open_run, output_folder
from spikingmoe.cli.console import percent, progress, say, show_table
from spikingmoe.cli.inspect import choose_images
from spikingmoe.cli.metrics import base_metrics, write_metrics
from spikingmoe.model import SpikingTransformer

MOST_CLASSES = 12  # that a table on a terminal has columns for


def run(args: Namespace) -> int:
    """Silence one part after the other: accuracy per class before and after, on the same images."""
    trained = open_run(args.run)
    model, names = trained.model, list(args.targets) or list(list_targets(trained.model))
    check_targets(model, names, all_at_once=args.together, reroute=args.reroute)
    data = open_data(trained, args)
    split = choose_images(data.test, args.samples)
    out = output_folder(args.out, trained.folder / "lesion")
    loads: dict[str, np.ndarray] = {}
    if routers_of(model):
        with progress(f"load of the experts on {len(split)} test images") as update:
            loads = read_mixture(model, split, shuffles=1, progress=update).loads
    targets = grouped(choose_targets(model, names, loads), all_at_once=args.together)
    with progress(f"{len(targets)} lesions on {len(split)} test images") as update:
        effects = measure_lesions(
            model, split, targets, reroute=args.reroute, loads=loads, progress=update
        )
    show_effects(effects, data.classes)
    write_bytes(out / "lesions.png", lesion_png(effects, data.classes))
    path = write_metrics(
        out,
        {
            **base_metrics("lesion", trained),
            "data": data.name,
            "samples": len(split),
            "rerouted": args.reroute,
            "accuracy": {
                "test": {"torch": effects[0].accuracy_before, "samples": len(split)},
            },
            "classes": list(data.classes),
            "images_per_class": effects[0].total.tolist(),
            "right_before_per_class": effects[0].before.tolist(),
            "load": {name: load.tolist() for name, load in loads.items()},
            "lesions": effect_metrics(effects, targets),
            "definitions": DEFINITIONS,
        },
    )
    say(f"picture: {out / 'lesions.png'}")
    say(f"metrics: {path}")
    return 0


DEFINITIONS = {
    "accuracy": "share of right answers with the lesion, with its 95 % interval (Wilson)",
    "change": "accuracy with the lesion less without it, on the same images, with its 95 % interval "
    "(paired, Agresti and Min 2005)",
    "p_value": "McNemar's exact test on the answers that became wrong and right",
    "q_value": "p_value adjusted for all lesions, or all lesions and classes (Benjamini-Hochberg)",
    "share_of_choices": "the expert's share of the choices in its mixture, without lesion",
}


def check_targets(
    model: SpikingTransformer, names: Sequence[str], *, all_at_once: bool, reroute: bool
) -> None:
    """ValueError for targets that do not exist or cannot be re-routed, before anything runs."""
    even = {t.experts[0][0]: np.ones(len(t.experts)) for t in list_targets(model).values()
            if t.kind == "mixture"}  # fmt: skip
    for target in grouped(choose_targets(model, names, even), all_at_once=all_at_once):
        with lesion(model, [target], reroute=reroute):
            pass


def grouped(targets: Sequence[Target], *, all_at_once: bool) -> list[Target]:
    """The targets one by one, or as one."""
    return [together(targets)] if all_at_once and len(targets) > 1 else list(targets)


def show_effects(effects: Sequence[Effect], classes: Sequence[str]) -> None:
    """Tables: overall and, where there is room, per class."""
    first, q = effects[0], total_q_values(effects)
    low, high = wilson_interval(int(first.before.sum()), first.samples)
    say(
        f"without lesion: {percent(first.accuracy_before)} right on {first.samples} test images "
        f"(95 %: {percent(low)} to {percent(high)})"
    )
    show_table(
        "lesions",
        ["silenced", "choices", "accuracy", "points", "95 %", "changed", "p", "q", "worst class"],
        [_row(effect, q[i], classes) for i, effect in enumerate(effects)],
    )  # fmt: skip
    say(
        "points: accuracy with less without, same images; changed: answers that did; "
        "p: McNemar's exact test; q: p adjusted for all lesions; "
        f"* q below {SIGNIFICANT}: stands out from noise"
    )
    if len(classes) <= MOST_CLASSES:
        show_table(
            f"accuracy per class, % (* q below {SIGNIFICANT})",
            ["silenced", *classes],
            class_rows(effects),
        )


def class_rows(effects: Sequence[Effect]) -> list[list[str]]:
    """A row without lesion, then one per lesion."""
    q = class_q_values(effects)
    rows = [["(nothing)", *_per_class(effects[0].before, effects[0].total)]]
    for i, effect in enumerate(effects):
        cells = _per_class(effect.after, effect.total)
        marks = ["*" if value < SIGNIFICANT else "" for value in q[i]]
        rows.append([effect.target, *(c + m for c, m in zip(cells, marks, strict=True))])
    return rows


def _per_class(right: np.ndarray, total: np.ndarray) -> list[str]:
    return [f"{100 * r / n:.1f}" if n else "-" for r, n in zip(right, total, strict=True)]


def _row(effect: Effect, q: float, classes: Sequence[str]) -> list[str]:
    low, high = effect.change_interval
    by_class = effect.change_by_class
    worst = int(np.nanargmin(by_class))
    return [
        effect.target,
        percent(effect.share_of_choices),
        percent(effect.accuracy_after),
        f"{100 * effect.change:+.1f}",
        f"{100 * low:+.1f} to {100 * high:+.1f}",
        str(effect.changed),
        f"{effect.p_value:.2g}",
        f"{q:.2g}{' *' if q < SIGNIFICANT else ''}",
        f"{classes[worst]}: {100 * by_class[worst]:+.1f}" if by_class[worst] < 0 else "-",
    ]


def effect_metrics(effects: Sequence[Effect], targets: Sequence[Target]) -> list[dict[str, object]]:
    """The `lesions` part of metrics.json."""
    q, by_class = total_q_values(effects), class_q_values(effects)
    return [
        {
            "target": effect.target,
            "kind": targets[i].kind,
            "share_of_choices": effect.share_of_choices,
            "accuracy": effect.accuracy_after,
            "accuracy_95": list(wilson_interval(int(effect.after.sum()), effect.samples)),
            "change": effect.change,
            "change_95": list(effect.change_interval),
            "lost": int(effect.lost.sum()),
            "gained": int(effect.gained.sum()),
            "answers_changed": effect.changed,
            "largest_logit_change": effect.largest_logit_change,
            "p_value": effect.p_value,
            "q_value": float(q[i]),
            "right_per_class": effect.after.tolist(),
            "lost_per_class": effect.lost.tolist(),
            "gained_per_class": effect.gained.tolist(),
            "p_value_per_class": effect.p_by_class.tolist(),
            "q_value_per_class": by_class[i].tolist(),
        }
        for i, effect in enumerate(effects)
    ]
