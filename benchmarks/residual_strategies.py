"""What the two exact forms of the residual stream cost: graded relays, or binary spikes alone.

The membrane shortcut U <- U + f(X) is never sent as such. On chip it is either summed in memoryless
relays that pass it on as graded spikes (*relay*), or every reader of the stream receives the synapses of
all earlier branches (*unrolled*). Both are lowered from one trained model and run on the same images:
in floating point both send what torch in float64 sends, spike for spike, and in fixed point both are the
same integers, or this script stops. The costs are those of the fixed-point networks: what they hold, what
they sent and computed on these images, and how they lie on Loihi 2 by our estimate.

    python benchmarks/residual_strategies.py --data-dir DIR --json benchmarks/results/residual_strategies.json \\
        --markdown benchmarks/results/residual_strategies.md

A model is a run's folder, a bundled checkpoint, or a preset, which is trained for `--epochs` first.
Weights differ between presets; compare the two forms of one model.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script: the folder of `benchmarks`

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness import Report, print_table
from hardware.energy import Operation, count_operations
from hardware.files import write_bytes
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import LIF, Input, is_graded, size
from hardware.loihi.mapping import map_graph
from hardware.lowering import lower, record_torch
from hardware.lowering.from_torch import Residual
from hardware.passes.quantise import quantise
from hardware.simulate import simulate
from hardware.trace import SpikeTrace
from hardware.verify import compare_traces
from spikingmoe.config import ModelConfig, TrainConfig, get_preset
from spikingmoe.config.presets import MADE_FOR
from spikingmoe.data import load_data_for
from spikingmoe.data.image_data import ImageData
from spikingmoe.model import SpikingTransformer
from spikingmoe.train.bundled import bundled_names
from spikingmoe.train.checkpoint import load_run
from spikingmoe.train.fit import train

FORMS: tuple[Residual, ...] = ("relay", "unrolled")
COMPARED = (
    "neurons", "synapses", "spikes_per_image", "graded_per_image", "synops_per_image", "cores", "hops",
)  # fmt: skip
CHIP = "loihi2"


@dataclass(frozen=True)
class Subject:
    """A trained model with the images it is shown."""

    name: str
    model: SpikingTransformer
    images: Tensor
    how: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 good, 2 bad input."""
    args = parse_arguments(arguments)
    try:
        return run(args)
    except (ValueError, OSError) as error:
        print(f"residual_strategies: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def run(args: argparse.Namespace) -> int:
    """Measure each model and write what is asked for."""
    torch.set_num_threads(args.threads)
    report = Report(seeds=[args.seed])
    for name in args.models:
        subject = load_subject(name, args)
        measure(report, subject, args.seed)
        title = f"{name}: {subject.how}, {len(subject.images)} test images, fixed point"
        print_table(title, table_of(report, name))
    report.print_end()
    if args.json:
        report.write(args.json)
    if args.markdown:
        write_bytes(args.markdown, markdown(report).encode())
    return 0


def table_of(report: Report, model: str) -> list[dict[str, object]]:
    """A row per measured thing, a column per form."""
    forms = {str(row["residual"]): row for row in report.rows if row["model"] == model}
    keys = [key for key in TITLES if key not in ("model", "residual", "n")]
    return [
        {"": TITLES[key], **{form: _cell(row[key]) for form, row in forms.items()}} for key in keys
    ]


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--models", nargs="+", default=["digits", "cifar-tiny"], metavar="MODEL",
        help="runs, bundled checkpoints or presets (digits cifar-tiny)",
    )  # fmt: skip
    parser.add_argument("--data-dir", help="folder of the data sets that are not installed")
    parser.add_argument("--images", type=int, default=32, help="test images, the first ones (32)")
    parser.add_argument("--epochs", type=int, default=8, help="for a preset without a run (8)")
    parser.add_argument(
        "--train-samples", type=int, default=0, help="for a preset without a run; 0: all (0)"
    )
    parser.add_argument("--threads", type=int, default=1, help="of torch (1)")
    parser.add_argument("--seed", type=int, default=0, help="of training and of the placement (0)")
    parser.add_argument("--json", metavar="FILE", help="write rows and ratios there")
    parser.add_argument("--markdown", metavar="FILE", help="write the tables there")
    args = parser.parse_args(arguments)
    if args.images < 1 or args.epochs < 1:
        parser.error(f"images={args.images} and epochs={args.epochs} must be at least 1")
    return args


def load_subject(name: str, args: argparse.Namespace) -> Subject:
    """A run, a bundled checkpoint, or a preset trained here."""
    if Path(name).exists() or name in bundled_names():
        run = load_run(name)
        how = f"as trained ({run.epoch} epochs)"
        data = load_images(run.model_config, run.train_config.data, args)
    else:
        config = get_preset(name)
        settings = TrainConfig(
            data=MADE_FOR[name].split(",")[0],
            epochs=args.epochs,
            warmup_epochs=min(1, args.epochs - 1),
            train_samples=args.train_samples,
            seed=args.seed,
        )
        data = load_images(config, settings.data, args)
        with tempfile.TemporaryDirectory() as folder:
            run = train(config, settings, data, Path(folder))
        how = f"trained here for {args.epochs} epochs"
    return Subject(name, run.model.eval(), data.test.first(args.images).images, how)


def load_images(config: ModelConfig, name: str, args: argparse.Namespace) -> ImageData:
    """The data set, from `--data-dir` unless it comes with a dependency."""
    return load_data_for(config, name, None if name == "digits" else args.data_dir)


def measure(report: Report, subject: Subject, seed: int) -> None:
    """Prove both forms exact, then a row of costs for each."""
    tell(subject, "lowering and quantising")
    floats = {form: lower(subject.model, residual=form) for form in FORMS}
    integers = {form: quantise(graph) for form, graph in floats.items()}
    tell(subject, "comparing with torch")
    compared = {
        form: check_against_torch(subject, graph, simulate(graph, subject.images), form)
        for form, graph in floats.items()
    }
    tell(subject, "comparing the forms in fixed point")
    traces = {form: simulate(graph, subject.images) for form, graph in integers.items()}
    same_integers = check_equal(traces["relay"], traces["unrolled"], integers["unrolled"])
    rows = {}
    for form in FORMS:
        tell(subject, f"counting and mapping, {form}")
        rows[form] = costs(integers[form], traces[form], seed)
        report.add(
            model=subject.name,
            residual=form,
            **rows[form],
            spikes_compared_with_torch=compared[form],
            integer_spikes_compared=same_integers,
            differing=0,
            n=len(subject.images),
        )
    for what in COMPARED:
        relay, unrolled = (float(str(rows[form][what])) for form in FORMS)
        if relay:
            report.ratios[f"{subject.name}_relay_vs_unrolled_{what}"] = unrolled / relay


def tell(subject: Subject, stage: str) -> None:
    """Say on stderr how far it is; large models take minutes."""
    print(f"{subject.name}: {stage}", file=sys.stderr, flush=True)


def check_against_torch(
    subject: Subject, graph: SpikeGraph, ours: SpikeTrace, form: Residual
) -> int:
    """Spikes compared between torch in float64 and the reference; SystemExit if any differs."""
    torch64 = record_torch(subject.model, subject.images, residual=form)
    comparison = compare_traces(graph, torch64, ours)
    if not comparison.same:
        raise SystemExit(f"{subject.name}, {form}: not what torch sends: {comparison.first}")
    return comparison.compared


def check_equal(left: SpikeTrace, right: SpikeTrace, graph: SpikeGraph) -> int:
    """Spikes and integer logits of both forms compared; SystemExit if any differs."""
    compared = 0
    for name in (p.name for p in graph.of_kind(LIF)):
        if not np.array_equal(left.spikes[name], right.spikes[name]):
            raise SystemExit(f"population '{name}': the two forms are not the same integers")
        compared += left.spikes[name].size
    if not np.array_equal(left.logits, right.logits):
        raise SystemExit("the two forms have different logits")
    return compared


def costs(graph: SpikeGraph, trace: SpikeTrace, seed: int) -> dict[str, object]:
    """What a network holds, what it did on the images, and how it lies on the chip."""
    own = [p for p in graph.populations.values() if not isinstance(p, Input)]
    counts = count_operations(graph, trace)
    per_image, mapping = counts.per_sample, map_graph(graph, CHIP, trace=trace, seed=seed)
    return {
        "populations": len(own),
        "relays": sum(is_graded(p) for p in own),
        "neurons": sum(size(p) for p in own),
        "synapses": sum(graph.matrix(s).nnz for s in graph.synapses),
        "spikes_per_image": per_image[Operation.SPIKE],
        "graded_per_image": per_image[Operation.GRADED_MESSAGE],
        "synops_per_image": counts.synops_per_sample,
        "accumulates_per_image": per_image[Operation.ACCUMULATE],
        "macs_per_image": per_image[Operation.MULTIPLY_ACCUMULATE],
        "cores": mapping.cores,
        "chips": mapping.mesh.chips,
        "hops": mapping.placed.hops,
    }


TITLES: Mapping[str, str] = {
    "model": "model",
    "residual": "residual",
    "n": "images",
    "populations": "populations",
    "relays": "of them graded",
    "neurons": "neurons",
    "synapses": "synapses",
    "spikes_per_image": "spikes / image",
    "graded_per_image": "graded messages / image",
    "synops_per_image": "synops / image",
    "accumulates_per_image": "accumulates",
    "macs_per_image": "multiply-accumulates",
    "cores": "cores (estimate)",
    "hops": "hops / image (estimate)",
    "spikes_compared_with_torch": "spikes compared with torch",
    "differing": "differing",
}


def markdown(report: Report) -> str:
    """The rows as a table, with what one must know to read it."""
    lines = [
        "# Residual streams: graded relays against unrolled synapses",
        "",
        "| " + " | ".join(TITLES.values()) + " |",
        "| --- | --- |" + " --: |" * (len(TITLES) - 2),
    ]
    for row in report.rows:
        lines.append("| " + " | ".join(_cell(row[key]) for key in TITLES) + " |")
    lines += [
        "",
        "Costs are of the fixed-point networks. Torch in float64 and both forms in floating point sent the "
        "same spikes; in fixed point both forms are the same integers. Synapses are non-zero weights with "
        "convolutions counted per position. Graded messages include the image's and a router's scores. "
        "Cores and hops are `hardware.loihi`'s estimate for Loihi 2.",
        "",
        f"`{report.command}`; seeds {report.seeds}; "
        + ", ".join(f"{k} {v}" for k, v in report.versions.items()),
        "",
    ]
    return "\n".join(lines)


def _cell(value: object) -> str:
    return f"{value:,.0f}" if isinstance(value, (int, float)) else str(value)


if __name__ == "__main__":
    sys.exit(main())
