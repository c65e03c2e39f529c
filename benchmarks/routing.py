"""Does routing pay, and which? Every routing against dense twins, over seeds, at equal operations.

    python benchmarks/routing.py --data digits --seeds 0 1 2 --out DIR --json FILE --plot FILE

Trains every variant of `routing_study/variants.py` with every seed, measures accuracy and synaptic
operations, and writes the table (terminal, JSON, Markdown beside it) and a picture. What is finished
is kept, what was interrupted is resumed, and several processes may work on one --out at once.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script: the folder of `benchmarks`

import torch

from benchmarks.agreement import check_outputs
from benchmarks.harness import Report, print_table
from benchmarks.intervals import RULE
from benchmarks.routing_study.answer import AGAINST, answer_of
from benchmarks.routing_study.experiment import (
    Experiment,
    agree,
    finished,
    list_jobs,
    load_experiment,
)
from benchmarks.routing_study.plot import draw
from benchmarks.routing_study.record import Record
from benchmarks.routing_study.runs import check_all, work
from benchmarks.routing_study.table import (
    accuracy_columns,
    cells,
    cost_columns,
    markdown,
    notes,
    row_values,
)
from benchmarks.routing_study.variants import FAMILIES, VARIANTS, Variant, choose_variants, same_as
from hardware.files import write_json, write_text
from spikingmoe.config import ModelConfig, TrainConfig, get_preset, override, unknown
from spikingmoe.data import load_data

BAD_INPUT = 2
PRESET_OF = {"digits": "digits", "cifar10": "cifar-tiny"}
#: What the recipe adds to TrainConfig's own defaults, by data.
RECIPE_OF: dict[str, dict[str, object]] = {
    "digits": {},
    "cifar10": {"max_shift": 4, "flip": True},
}


def parser() -> argparse.ArgumentParser:
    """The options."""
    families = {f: " ".join(v.name for v in VARIANTS if v.family == f) for f in FAMILIES}
    found = argparse.ArgumentParser(
        prog="routing.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="families and their variants:\n"
        + "\n".join(f"  {f}: {names}" for f, names in families.items()),
    )
    add = found.add_argument
    add("--data", choices=sorted(PRESET_OF), help="data set (digits)")
    add(
        "--data-dir",
        metavar="DIR",
        help="folder of the data set (the default one, where CIFAR is downloaded)",
    )
    add("--preset", metavar="NAME", help="model preset (digits; cifar-tiny for cifar10)")
    add("--set", nargs="+", default=[], metavar="NAME=VALUE", dest="changes",
        help="options of the model or the recipe that all variants start from")  # fmt: skip
    add("--seeds", type=int, nargs="+", metavar="N", help="seeds (0 1 2)")
    add("--variants", nargs="+", default=[], metavar="NAME",
        help="variants or families, beside the two dense twins (all)")  # fmt: skip
    add("--epochs", type=int, help="passes over the training images (40)")
    add("--train-samples", type=int, help="training images, evenly over the classes (all)")
    add("--threads", type=int, help="CPU threads of each process (1)")
    add("--synops-images", type=int, default=64,
        help="test images that synaptic operations are counted on (64)")  # fmt: skip
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the runs")
    add("--json", type=Path, required=True, metavar="FILE",
        help="results; a Markdown table goes beside")  # fmt: skip
    add("--plot", type=Path, metavar="FILE", help="picture (PNG, SVG or PDF)")
    add("--report-only", action="store_true", help="train nothing: report what --out holds")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 good, 1 a run broke off, 2 bad input, 130 interrupted."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    args = parser().parse_args(argv)
    try:
        return _run(args)
    except (ValueError, TypeError, OSError) as error:
        if os.environ.get("SPIKINGMOE_TRACEBACK"):
            raise
        print(f"routing.py: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        print("routing.py: interrupted; the same command goes on", file=sys.stderr)
        return 128 + signal.SIGINT


def _run(args: argparse.Namespace) -> int:
    variants = choose_variants(args.variants)
    _check_outputs(args)
    broken: list[str] = []
    if args.report_only:
        experiment = load_experiment(args.out)
        if experiment is None:
            raise ValueError(f"{args.out}: holds no experiment; start one without --report-only")
        there = _runs_there(args.out)
        seeds = sorted({*(args.seeds or [seed for _, seed in there])})
        if not args.variants:
            variants = choose_variants([name for name, _ in there])
    else:
        experiment = _experiment(args)
        torch.set_num_threads(experiment.settings.threads)
        seeds = sorted({*(args.seeds or [0, 1, 2])})
        jobs = list_jobs(experiment, variants, seeds)
        data = load_data(experiment.settings.data, args.data_dir)
        check_all(experiment, jobs, data)
        agree(args.out, experiment)
        _say(f"{len(variants)} variants, {len(seeds)} seeds: {len(jobs)} runs in {args.out}")
        broken = work(experiment, jobs, data, args.out, _say)
    _report(args, experiment, variants, seeds)
    for line in broken:
        print(f"routing.py: {line}", file=sys.stderr)
    return 1 if broken else 0


def _experiment(args: argparse.Namespace) -> Experiment:
    data = args.data or "digits"
    base = get_preset(args.preset or PRESET_OF[data])
    given = {"epochs": args.epochs, "train_samples": args.train_samples, "threads": args.threads}
    values = RECIPE_OF[data] | {k: v for k, v in given.items() if v is not None}
    settings = TrainConfig(data=data, **values)  # type: ignore[arg-type]
    model, recipe = _changes(args.changes, base, settings)
    base = override(base, **model)
    settings = dataclasses.replace(settings, **recipe)  # type: ignore[arg-type]
    if not base.is_mixture:
        raise ValueError(f"preset '{base.preset}' has no mixture to compare; use another --preset")
    return Experiment(
        base=base, settings=settings, synops_images=args.synops_images, data_dir=args.data_dir
    )


def _changes(
    words: Sequence[str], base: ModelConfig, settings: TrainConfig
) -> tuple[dict[str, object], dict[str, object]]:
    """What `--set` asks for: options of the model, and of the recipe."""
    model: dict[str, object] = {}
    recipe: dict[str, object] = {}
    sides = ((base, {"preset"}, model), (settings, {"seed", "data"}, recipe))
    known = {
        f.name: (getattr(config, f.name), changes)
        for config, own, changes in sides
        for f in dataclasses.fields(config)
        if f.name not in own
    }
    for word in words:
        name, _, text = word.partition("=")
        if name not in known:
            raise ValueError(f"--set: {unknown('option', name, known)}")
        example, changes = known[name]
        changes[name] = _value(name, text, example)
    return model, recipe


def _value(name: str, text: str, example: object) -> object:
    """`text` as a value like `example`: a number, a truth value, numbers with commas, or a word."""
    try:
        if isinstance(example, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(example, tuple):
            return tuple(int(part) for part in text.split(",") if part)
        return type(example)(text)  # type: ignore[call-arg]
    except (ValueError, KeyError):
        raise ValueError(f"--set {name}={text}: needs a value like {example!r}") from None


def _check_outputs(args: argparse.Namespace) -> None:
    check_outputs(args.json, args.plot)
    if args.synops_images < 1:
        raise ValueError(f"--synops-images {args.synops_images} must be at least 1")


def _runs_there(out: Path) -> list[tuple[str, int]]:
    """(variant, seed) of every run that was begun; ValueError if there is none."""
    names = {v.name for v in VARIANTS}
    found = [p.name.rpartition("-seed") for p in (out / "runs").glob("*-seed*")]
    runs = [(name, int(seed)) for name, _, seed in found if name in names and seed.isdecimal()]
    if not runs:
        raise ValueError(f"{out}: holds no run yet")
    return runs


def _report(
    args: argparse.Namespace,
    experiment: Experiment,
    variants: Sequence[Variant],
    seeds: Sequence[int],
) -> None:
    records: dict[str, dict[int, Record]] = {}
    missing: list[str] = []
    for job in list_jobs(experiment, variants, seeds):
        record = finished(args.out, job, experiment)
        if record is None:
            missing.append(str(job))
        elif record.failure is not None:
            missing.append(f"{job} ({record.failure})")
        else:
            records.setdefault(job.variant, {})[job.seed] = record
    if not records:
        raise ValueError(f"{args.out}: holds no finished run yet")
    same = same_as(experiment.base, experiment.settings)
    run_names = {same[v.name] for v in variants}
    answer = answer_of(records, [v for v in VARIANTS if v.name in run_names], same, seeds)
    settings, n = experiment.settings, next(iter(next(iter(records.values())).values())).test_images
    title = f"Routing on {settings.data}, preset {experiment.base.preset}"
    facts = {
        "seeds": ", ".join(map(str, seeds)),
        "test images": n,
        "training images": settings.train_samples or "all",
        "epochs": settings.epochs,
        "synaptic operations counted on": f"the first {experiment.synops_images} test images",
    }
    lines = notes(answer, facts, missing)
    print_table(title, cells(answer.rows, accuracy_columns()))
    print_table("Costs", cells(answer.rows, cost_columns()))
    for line in lines:
        _say(line)
    report = Report(seeds=list(seeds), ratios=answer.ratios)
    for row in answer.rows:
        report.add(**row_values(row, answer))
    extra = {
        "experiment": {k: v for k, v in experiment.as_dict().items() if k != "data_dir"},
        "chosen": answer.chosen.name if answer.chosen else None,
        "chosen_by": "validation accuracy, among the mixtures that lower and have all seeds",
        "rule": RULE,
        "against": AGAINST,
        "missing": missing,
    }
    write_json(args.json, report.as_dict() | extra)
    write_text(args.json.with_suffix(".md"), markdown(answer.rows, title, lines))
    if args.plot is not None:
        draw(answer.rows, f"{title}, seeds {facts['seeds']}, {n} test images", args.plot)


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
