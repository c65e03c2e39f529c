"""Fewer synaptic operations for the same accuracy: budgets, firing-rate targets, steps, early exit.

    python benchmarks/fewer_operations.py --json benchmarks/results/fewer_operations_digits.json
    python benchmarks/fewer_operations.py --json ... --models moe dense dense_params --rates

For each seed the digits preset is trained freely, with budgets that are shares of what the free network
uses on validation images, and with firing-rate targets. Of each network: whole windows, windows of
fewer steps, and early exit with a threshold chosen on validation images. Operations are
counted by the reference on all test images. A row is written as soon as it is there; a second call
goes on where the first ended. The table and the picture lie beside the JSON file.

Dense twins (`--models`) get the very budgets of the mixture, in operations: shares are of what the free
mixture of the same seed uses.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import statistics
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script: the folder of `benchmarks`

import torch

from benchmarks.agreement import check_outputs
from benchmarks.epoch_clock import say_epochs
from benchmarks.error_axis import error, name_ticks, show_accuracy
from benchmarks.harness import Report
from hardware.early_exit import choose_threshold
from spikingmoe.cli.fewer_steps import ENERGY, add_energies, exit_row, record_split, steps_row
from spikingmoe.cli.twins import TWINS
from spikingmoe.config import ModelConfig, TrainConfig, get_preset
from spikingmoe.data import load_data
from spikingmoe.data.image_data import ImageData
from spikingmoe.train.fit import train

BUDGETS = (0.6, 0.4, 0.25, 0.8)
RATES = (0.1, 0.05)
RATE_WEIGHT = 30.0
ALLOWED = 0.005  # of the validation images, that early exit may cost
FREE, MIXTURE = "free", "moe"
MODELS = (MIXTURE, "dense", "dense_params")


def variants(
    settings: TrainConfig, free_synops: float, budgets: list[float], rates: list[float]
) -> dict[str, TrainConfig]:
    """Recipes by name; budgets up to 1 are shares of `free_synops`, others operations per image."""
    return {
        **{
            f"budget {b:g}": replace(settings, synops_budget=b * free_synops if b <= 1 else b)
            for b in budgets
        },
        **{
            f"rate {rate}": replace(settings, rate_target=rate, rate_weight=RATE_WEIGHT)
            for rate in rates
        },
    }


def config_of(model: str) -> ModelConfig:
    """The preset's mixture, or a twin of it."""
    mixture = get_preset("digits")
    return mixture if model == MIXTURE else TWINS[model](mixture)


def measure(
    model: str, settings: TrainConfig, data: ImageData, folder: Path, report: Report, variant: str
) -> None:
    """Train, and add one row per way of reading the network."""
    say = functools.partial(print, file=sys.stderr, flush=True)
    lines = say_epochs(folder.name, folder, say)
    run = train(config_of(model), settings, data, folder, resume=True, report=lines)
    say(f"{folder.name}: measuring")
    held_out, test = record_split(run, data.validation), record_split(run, data.test)
    whole = run.model_config.time_steps
    common = {
        "model": model,
        "variant": variant,
        "seed": settings.seed,
        "epochs": settings.epochs,
        "n": len(data.test),
        "budget": settings.synops_budget or None,
    }
    threshold = choose_threshold(held_out, data.validation.labels.numpy(), loss=ALLOWED)
    lengths = range(1, whole + 1)
    rows: list[dict] = [steps_row(test, data.test, steps) for steps in lengths]
    exits = exit_row(test, data.test, threshold)
    add_energies(run, data.test, [*rows, exits], [*lengths, test.exit_steps(threshold)])
    for row, steps in zip(rows, lengths, strict=True):
        chosen = steps_row(held_out, data.validation, steps)
        report.add(
            **common,
            reading=f"{steps} steps",
            validation_accuracy=chosen["accuracy"],
            validation_synops=chosen["synops_per_sample"],
            **row,
        )
    report.add(**common, reading="early exit", **exits)


def run(args: argparse.Namespace) -> Report:
    """All rows that `args` asks for; those of an earlier call are taken over."""
    torch.set_num_threads(1)
    path, data = Path(args.json), load_data("digits")
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    seeds = {int(row["seed"]) for row in rows} | set(args.seeds)
    report = Report(seeds=sorted(seeds), rows=rows)
    models = [model for model in MODELS if model in args.models]  # the mixture first
    if MIXTURE not in models:
        for seed in args.seeds:
            free_synops(report, seed)
    for model, seed in itertools.product(models, args.seeds):
        settings = TrainConfig(epochs=args.epochs, seed=seed)
        work = [(FREE, settings)]
        while work:
            variant, recipe = work.pop(0)
            if not rows_of(report, model, variant, seed):
                name = variant if model == MIXTURE else f"{model} {variant}"
                folder = Path(args.work) / f"{name.replace(' ', '-')}-seed{seed}"
                measure(model, recipe, data, folder, report, variant)
                report.write(path)
            if variant == FREE:
                used = free_synops(report, seed)
                work += variants(settings, used, args.budgets, args.rates).items()
    return report


def rows_of(report: Report, model: str, variant: str, seed: int) -> list[dict[str, object]]:
    """What the report holds of one training; rows of earlier versions name no model."""
    wanted = (model, variant, seed)
    return [r for r in report.rows if (r.get("model", MIXTURE), r["variant"], r["seed"]) == wanted]


def free_synops(report: Report, seed: int) -> float:
    """Operations per validation image of the free mixture.

    Raises:
        ValueError: it is not there yet.
    """
    for row in rows_of(report, MIXTURE, FREE, seed):
        if row["reading"] == f"{whole_steps()} steps":
            return float(str(row["validation_synops"]))
    raise ValueError(f"seed {seed}: budgets are shares of the free mixture's; add --models moe")


def whole_steps() -> int:
    """Steps of a whole window."""
    return get_preset("digits").time_steps


def means(rows: list[dict]) -> list[dict[str, object]]:
    """Rows of one model, variant and reading as one: means over seeds, and how many there were."""
    groups: dict[tuple, list[dict]] = {}
    for row in rows:
        key = (row.get("model", MIXTURE), row["variant"], row["reading"])
        groups.setdefault(key, []).append(row)
    found = []
    for (model, variant, reading), same in groups.items():
        numbers = (
            "accuracy",
            "synops_per_sample",
            ENERGY,
            "steps",
            "latency_steps",
            "interval_steps",
        )
        mean = {name: statistics.mean(r[name] for r in same) for name in numbers}
        flying = [r["synops_per_sample_in_flight"] for r in same if reading == "early exit"]
        found.append(
            {
                "model": model,
                "variant": variant,
                "reading": reading,
                "seeds": len(same),
                **mean,
                "in_flight": statistics.mean(flying) if flying else None,
            }
        )
    return found


def table(report: Report) -> str:
    """The means as Markdown."""
    lines = [
        "| model | training | reading | seeds | accuracy | synaptic operations | with those in flight | nJ (horowitz45) "
        "| steps | latency (steps) |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in means(report.rows):
        flying = f"{row['in_flight']:,.0f}" if row["in_flight"] is not None else ""
        lines.append(
            f"| {row['model']} | {row['variant']} | {row['reading']} | {row['seeds']} | {100 * row['accuracy']:.2f} % "  # type: ignore[operator]
            f"| {row['synops_per_sample']:,.0f} | {flying} | {row[ENERGY]:,.1f} | {row['steps']:.2f} "
            f"| {row['latency_steps']:.1f} |"
        )
    return "\n".join(lines) + "\n"


def draw(report: Report, path: Path) -> None:
    """Accuracy against operations, and latency beside operations."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    every, whole = means(report.rows), f"{whole_steps()} steps"
    rows = [r for r in every if r["model"] == MIXTURE]
    for kind, (marker, colour) in {
        "free": ("o", "#33404d"), "budget": ("s", "#0f9d8a"), "rate": ("^", "#d9304f"),
    }.items():  # fmt: skip
        own = [r for r in rows if str(r["variant"]).startswith(kind)]
        for reading, words, face in (
            (whole, "whole windows", colour), ("early exit", "early exit", "none"),
        ):  # fmt: skip
            left.scatter(
                *_places([r for r in own if r["reading"] == reading]), marker=marker, facecolor=face,
                edgecolor=colour, label=f"{kind}, {words}",
            )  # fmt: skip
        for variant in dict.fromkeys(str(r["variant"]) for r in own):
            shorter = [r for r in own if r["variant"] == variant and "steps" in str(r["reading"])]
            left.plot(*_places(shorter), color=colour, lw=0.8, ls=":", zorder=0)
    for twin, marker in (("dense", "x"), ("dense_params", "+")):
        own = [r for r in every if r["model"] == twin and r["reading"] == whole]
        if own:
            left.scatter(
                *_places(own), marker=marker, color="#8c6d1f", label=f"{twin}, whole windows"
            )
    left.set(xlabel="synaptic operations per image (thousands); dotted: 1 to T steps", xscale="log")
    show_accuracy(left, _places(every)[1])
    name_ticks(left.xaxis)
    left.legend(frameon=False, fontsize=8)
    free = [r for r in rows if r["variant"] == FREE]
    labels = [str(r["reading"]) for r in free]
    right.bar(range(len(free)), [float(str(r[ENERGY])) for r in free], color="#0f9d8a")
    right.set_xticks(range(len(free)), labels)
    right.set_ylabel("estimated energy, nJ (horowitz45), free network")
    beside = right.twinx()
    beside.plot(
        range(len(free)), [float(str(r["latency_steps"])) for r in free], "D", color="#33404d"
    )
    beside.set(ylabel="latency (steps), diamonds", ylim=(0, 40))
    figure.savefig(path, dpi=120)


def _places(rows: list[dict[str, object]]) -> tuple[list[float], list[float]]:
    """(thousands of operations, errors in %) of each."""
    return (
        [float(str(r["synops_per_sample"])) / 1e3 for r in rows],
        [error(float(str(r["accuracy"]))) for r in rows],
    )


def main(argv: list[str] | None = None) -> int:
    """Train what is missing, print the table, write the results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--json", required=True, help="results; the table and picture lie beside")
    parser.add_argument("--work", default="runs/fewer-operations", help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--budgets", type=float, nargs="+", default=list(BUDGETS))
    parser.add_argument(
        "--rates", type=float, nargs="*", default=list(RATES), help="firing-rate targets"
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=[MIXTURE])
    parser.add_argument("--draw-only", action="store_true", help="of the rows that there are")
    args = parser.parse_args(argv)
    path = Path(args.json)
    try:
        check_outputs(path, None)
        if args.draw_only:
            content = json.loads(path.read_text())
            report = Report(seeds=content["seeds"], rows=content["rows"])
        else:
            report = run(args)
            report.write(path)
    except (ValueError, OSError) as error:
        print(f"fewer_operations: {error}", file=sys.stderr)
        return 2
    path.with_suffix(".md").write_text(table(report))
    draw(report, path.with_suffix(".png"))
    print(table(report))
    report.print_end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
