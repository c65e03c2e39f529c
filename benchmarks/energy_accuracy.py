"""Where does the mixture pay in energy? Accuracy against estimated energy, over seeds, with its twins.

    python benchmarks/energy_accuracy.py --data digits --jobs 2 --out DIR --json FILE --plot FILE

Changes one factor of a preset at a time (--study grid: all combinations; --study pareto: a search),
trains every point and its twins with every seed, measures accuracy in floating and in fixed point,
counts operations, and writes a table (terminal, JSON, Markdown beside it) and a picture. The same
command goes on where it was stopped; workers that died leave nothing undone; with --storage URL
workers on several machines share one study.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script: the folder of `benchmarks`

import torch

from benchmarks.agreement import check_outputs
from benchmarks.study.cluster import ClusterOptions, run_on_cluster
from benchmarks.study.points import Axes
from benchmarks.study.report import report
from benchmarks.study.settings import StudySettings, agree, load_settings
from benchmarks.study.storage import Trials, require_optuna
from benchmarks.study.work import WorkerOptions, run_workers, work
from hardware.energy import get_table
from hardware.errors import HardwareError
from spikingmoe.cli.twins import NAMES
from spikingmoe.config import TrainConfig, get_preset, unknown
from spikingmoe.data import load_data
from spikingmoe.data.fit import check_shapes
from spikingmoe.train.fit import training_samples

BAD_INPUT, INTERRUPTED = 2, 130
PRESET_OF = {"digits": "digits", "cifar10": "cifar-tiny"}
#: What the recipe adds to TrainConfig's own defaults, by data.
RECIPE_OF: dict[str, dict[str, object]] = {
    "digits": {},
    "cifar10": {"max_shift": 4, "flip": True},
}
STORAGE = "SPIKINGMOE_STUDY_STORAGE"


def parser() -> argparse.ArgumentParser:
    """The options."""
    found = argparse.ArgumentParser(
        prog="energy_accuracy.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = found.add_argument
    add("--study", choices=("factors", "grid", "pareto"), help="kind of study (factors)")
    add("--data", choices=sorted(PRESET_OF), help="data set (digits)")
    add("--data-dir", metavar="DIR", help="folder of the data set")
    add("--preset", metavar="NAME", help="model preset (digits; cifar-tiny for cifar10)")
    add("--experts", type=int, nargs="+", metavar="E", help="numbers of experts (2 4 8)")
    add("--top-k", type=int, nargs="+", metavar="K", help="experts per token (1 2)")
    add("--routing", nargs="+", metavar="NAME", help="routings (top_k threshold)")
    add("--time-steps", type=int, nargs="+", metavar="T", help="time steps (1 2 4)")
    add("--bits", type=int, nargs="+", metavar="B",
        help="bits of weights in fixed point, after training; the first is the picture's (8 4)")  # fmt: skip
    add("--attention", nargs="+", metavar="NAME", help="attentions (qk dwconv none)")
    add("--twins", nargs="*", metavar="NAME", help=f"twins of the preset ({' '.join(NAMES)})")
    add("--seeds", type=int, nargs="+", metavar="N", help="seeds (0 1 2)")
    add("--epochs", type=int, help="passes over the training images (40)")
    add("--train-samples", type=int, help="training images, evenly over the classes (all)")
    add("--threads", type=int, help="CPU threads of each worker (1)")
    add("--images", type=int, help="test images that operations are counted on (64)")
    add("--costs", metavar="NAMES",
        help="cost tables with commas, the first is the picture's (horowitz45-int,lemaire,yan,horowitz45)")  # fmt: skip
    add("--trials", type=int, help="points that a pareto study tries (40)")
    add("--jobs", type=int, default=1, help="worker processes at once (1)")
    add("--storage", metavar="URL",
        help="database of the trials instead of a journal in --out, such as sqlite:////DIR/study.db")  # fmt: skip
    add("--slurm", action="store_true", help="workers are jobs of a Slurm cluster")
    add("--slurm-partition", metavar="NAME", help="of the cluster (its default)")
    add("--slurm-minutes", type=int, default=240, help="that a job may take (240)")
    add("--slurm-executor", choices=("slurm", "local", "debug"), default="slurm",
        help="submitit's executor; local and debug try it without a cluster (slurm)")  # fmt: skip
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the study")
    add("--json", type=Path, metavar="FILE", help="results; a Markdown table goes beside")
    add("--plot", type=Path, metavar="FILE", help="picture (PNG, SVG or PDF)")
    add("--table-only", action="store_true", help="train nothing: report what the study holds")
    add("--worker", action="store_true", help=argparse.SUPPRESS)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 good, 1 a trial broke off, 2 bad input, 130 interrupted."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    args = parser().parse_args(argv)
    try:
        if args.worker:
            return work(WorkerOptions(out=args.out, storage=os.environ.get(STORAGE), data_dir=args.data_dir))  # fmt: skip
        return _run(args)
    except (ValueError, TypeError, OSError, HardwareError) as error:
        if os.environ.get("SPIKINGMOE_TRACEBACK"):
            raise
        print(f"energy_accuracy.py: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        if not args.worker:
            print("energy_accuracy.py: interrupted; the same command goes on", file=sys.stderr)
        return INTERRUPTED


def _run(args: argparse.Namespace) -> int:
    require_optuna()
    check_outputs(args.json, args.plot)
    code = 0
    options = WorkerOptions(out=args.out, storage=args.storage, data_dir=args.data_dir)
    if args.table_only:
        settings = load_settings(args.out)
        if settings is None:
            raise ValueError(f"{args.out}: holds no study; start one without --table-only")
        trials = Trials(settings, args.out, args.storage)
    else:
        settings = _settings(args)
        torch.set_num_threads(settings.train.threads)
        data = load_data(settings.train.data, args.data_dir)
        check_shapes(settings.base, data)
        training_samples(settings.train, data)
        data.test.first(settings.images)
        settings.points()
        agree(args.out, settings)
        trials = Trials(settings, args.out, args.storage)
        trials.queue()
        done, every = trials.progress()
        _say(f"{every} trials in {args.out}, {done} of them ended")
        if args.slurm:
            cluster = ClusterOptions(
                executor=args.slurm_executor,
                partition=args.slurm_partition,
                minutes=args.slurm_minutes,
            )
            code = run_on_cluster(options, cluster, args.jobs, settings.train.threads)
        elif args.jobs == 1:
            code = work(options)
        else:
            code = run_workers(Path(__file__), options, args.jobs)
        trials = Trials(settings, args.out, args.storage)
    report(trials, settings, args.json, args.plot, _say)
    return code


def _settings(args: argparse.Namespace) -> StudySettings:
    """The study that the command line asks for."""
    data = args.data or "digits"
    base = get_preset(args.preset or PRESET_OF[data])
    given = {"epochs": args.epochs, "train_samples": args.train_samples, "threads": args.threads}
    values = RECIPE_OF[data] | {k: v for k, v in given.items() if v is not None}
    for twin in args.twins or ():
        if twin not in NAMES:
            raise ValueError(f"--twins: {unknown('twin', twin, NAMES)}")
    costs = tuple((args.costs or "horowitz45-int,lemaire,yan,horowitz45").split(","))
    for name in costs:
        get_table(name)
    if args.jobs < 1:
        raise ValueError(f"--jobs {args.jobs} must be at least 1")
    kind = args.study or "factors"
    return StudySettings(
        kind=kind,
        base=base,
        train=TrainConfig(data=data, **values),  # type: ignore[arg-type]
        axes=Axes(
            experts=tuple(args.experts or (2, 4, 8)),
            top_k=tuple(args.top_k or (1, 2)),
            routing=tuple(args.routing or ("top_k", "threshold")),
            time_steps=tuple(args.time_steps or (1, 2, 4)),
            attention=tuple(args.attention or ("qk", "dwconv", "none")),
            bits=tuple(args.bits or (8, 4)),
            twins=NAMES if args.twins is None else tuple(args.twins),
        ),
        seeds=tuple((0, 1, 2) if args.seeds is None else args.seeds),
        images=64 if args.images is None else args.images,
        costs=costs,
        trials=(40 if args.trials is None else args.trials) if kind == "pareto" else 0,
    )


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
