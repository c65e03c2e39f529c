"""How fast is a hardware step on Lava's CPU simulator? Fused processes against Lava's stock processes.

The same graph and the same samples, in turns in one run, through: the fused processes (several steps per
message, and one), Lava's stock processes with Lava's own models, and the same stock processes with our
models of them. Graphs: one full block (local mixing, attention, experts) cut out of `--network`, with
what it hears replayed from a recording of real images, and the whole digits model (a fresh one whose
norms are settled; its weights are untrained). Before any time is taken every side must send the spikes of
the reference, neuron by neuron, on the first samples (in fixed point all graded messages too); in the
timed runs the readout of all samples is compared.

`step_ms` is the run's time over its hardware steps, `step_cpu_ms` the processor time of all processes,
which a busy machine changes less. `vs_stock` and `vs_fast_stock` are times the stock's and the fast stock's
speed (step_ms, block, float; `_fixed`, `_digits`, `_cpu` and `_one_step`, one step per message, are named
so). `vs_torch` is how many times torch's speed the reference interpreter has on whole images (torch seconds
/ reference seconds; of processor time where one thread computes) in float64, like for like;
`vs_torch_fp32` and `vs_torch_fixed` compare torch in float32 with the reference in float64 and in fixed
point. Tables tell how the processor time of a fused step's arithmetic grows with blocks, tokens and
experts and falls with the firing rate (no Lava there).

    python benchmarks/lava_speed.py --data-dir DIR --json benchmarks/results/lava_speed.json
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script: the folder of `benchmarks`

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from benchmarks.harness import (
    PACKAGES,
    Report,
    paired_ratio,
    print_table,
    seconds_in_turns,
    spread,
    versions,
)
from benchmarks.lava_block import cut_out
from benchmarks.lava_growth import add_growth, settled
from hardware.ir import SpikeGraph, run_reference
from hardware.ir.stream import stream_steps
from hardware.lava.run import run_lava
from hardware.lava.settings import Settings
from hardware.lowering import lower
from hardware.passes.pipeline import prepare
from hardware.simulate import to_inputs
from hardware.trace import SpikeTrace
from hardware.verify import compare_traces
from spikingmoe import create_model
from spikingmoe.data import load_data
from spikingmoe.model import SpikingTransformer
from spikingmoe.train.bundled import bundled_names
from spikingmoe.train.checkpoint import load_run

FUSED, ONE_STEP, STOCK, FAST = "fused", "fused, one step per message", "stock", "fast stock"
SIDES = {
    FUSED: Settings(),
    ONE_STEP: Settings(at_once=1),
    STOCK: Settings(network="stock"),
    FAST: Settings(network="stock", stock_models="fast"),
}
ARITHMETICS = ("float", "fixed")
SHOWN = ("graph", "arithmetic", "side", "step_ms", "step_cpu_ms", "processes", "n", "load")
CHECKED = 8  # samples whose every spike is compared


@dataclass(frozen=True)
class Subject:
    """A graph, what it is shown, and what it is."""

    graph: SpikeGraph
    inputs: np.ndarray
    name: str
    about: str


def main(argv: Sequence[str] | None = None) -> None:
    args = parse_arguments(argv)
    torch.set_num_threads(args.threads)
    report = Report(seeds=[args.seed], versions=versions([*PACKAGES, "lava-nc", "scipy"]))
    model, images, about = network_of(args)
    graphs = {arithmetic: prepare(lower(model), arithmetic) for arithmetic in ARITHMETICS}
    with threadpool_limits(args.threads):
        time_torch(report, model, graphs, images[: args.images], about, args)
    report.print("Inference of whole images", measured="inference")
    digits, digit_images = digits_model(args)
    for arithmetic, graph in graphs.items():
        time_sides(report, block_of(graph, images[: args.samples], about, args.block), args)
        whole = prepare(lower(digits), arithmetic)
        inputs = to_inputs(whole, digit_images)
        about_digits = "whole digits model, untrained, settled norms, digits images"
        time_sides(report, Subject(whole, inputs, "digits", about_digits), args)
    for row in report.rows:
        if row["measured"] == "step" and row["side"] == FUSED:
            print(f"{row['graph']}, {row['arithmetic']}: {row['what']}")
    shown = [r for r in report.rows if r["measured"] == "step"]
    print_table("A hardware step", [{k: r[k] for k in SHOWN} for r in shown])
    if args.growth:
        with threadpool_limits(1):
            add_growth(report, repeats=args.repeats, seed=args.seed)
        for varied in ("blocks", "tokens", "experts", "thresholds"):
            report.print(
                f"Arithmetic of a fused step by {varied}", measured="growth", varied=varied
            )
    report.machine["load_at_end"] = os.getloadavg()[0]
    report.print_end()
    if args.json:
        report.write(args.json)


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--network",
        default="cifar-tiny",
        help="whose block is timed: a bundled checkpoint, or a preset (untrained); default %(default)s",
    )
    parser.add_argument("--block", type=int, default=0, help="its number; default %(default)s")
    parser.add_argument("--data-dir", help="folder of CIFAR-10; random smooth images without one")
    parser.add_argument("--samples", type=int, default=64, help="on Lava; default %(default)s")
    parser.add_argument(
        "--images", type=int, default=256, help="for torch and reference; default %(default)s"
    )
    parser.add_argument("--repeats", type=int, default=3, help="per side; default %(default)s")
    parser.add_argument("--threads", type=int, default=1, help="of torch and NumPy; default 1")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    parser.add_argument(
        "--no-growth", dest="growth", action="store_false", help="leave the tables of growth out"
    )
    parser.add_argument("--json", metavar="FILE", help="write the results there")
    args = parser.parse_args(argv)
    for name in ("samples", "images", "repeats", "threads"):
        if getattr(args, name) < 1:
            parser.error(f"--{name} {getattr(args, name)} must be at least 1")
    return args


def network_of(args: argparse.Namespace) -> tuple[SpikingTransformer, Tensor, str]:
    """The model, images for it (S, C, H, W), and what both are."""
    count = max(args.samples, args.images)
    if args.network in bundled_names():
        model, about = load_run(args.network).model.eval(), f"trained {args.network}"
    else:
        torch.manual_seed(args.seed)
        model, about = create_model(args.network, num_classes=10), f"untrained {args.network}"
    if args.data_dir:
        images, what = load_data("cifar10", args.data_dir).test.first(count).images, "CIFAR-10"
    else:
        generator = torch.Generator().manual_seed(args.seed)
        noise = torch.randn((count, *model.input_shape), generator=generator)
        images, what = torch.nn.functional.avg_pool2d(noise, 3, 1, 1) * 3, "random smooth images"
    if "untrained" in about:
        model = settled(model, images[:64])
    return model, images, f"{about}, {what}"


def digits_model(args: argparse.Namespace) -> tuple[SpikingTransformer, Tensor]:
    data = load_data("digits")
    torch.manual_seed(args.seed)
    model = settled(create_model("digits", num_classes=10), data.train.images[:256])
    return model, data.test.first(min(args.samples, len(data.test))).images


def block_of(graph: SpikeGraph, images: Tensor, about: str, number: int) -> Subject:
    trace = run_reference(graph, to_inputs(graph, images))
    block = cut_out(graph, f"blocks.{number}.", trace)
    return Subject(
        block.graph,
        block.inputs,
        "block",
        f"block {number} of {about}: {len(block.names)} populations, replayed: "
        f"{', '.join(block.replayed)}",
    )


def time_sides(report: Report, subject: Subject, args: argparse.Namespace) -> None:
    """Rows and ratios of all sides on one graph; nothing is timed unless the spikes are the same."""
    graph, inputs = subject.graph, subject.inputs
    few = inputs[:CHECKED]
    expected = run_reference(graph, few)
    compared = {
        side: check(graph, side, expected, run_lava(graph, few, settings=settings))
        for side, settings in SIDES.items()
    }
    output = [graph.readout.name]
    expected = run_reference(graph, inputs, record=output)
    runs: dict[str, list[Mapping[str, object]]] = {side: [] for side in SIDES}

    def one(side: str) -> None:
        trace = run_lava(graph, inputs, record=output, settings=SIDES[side])
        if not np.allclose(trace.logits, expected.logits, rtol=0, atol=1e-9):
            raise ValueError(f"{side}: other logits than the reference's; no time is reported")
        runs[side].append(trace.meta)

    seconds_in_turns(
        {side: lambda side=side: one(side) for side in SIDES}, repeats=args.repeats, warm_up=0
    )
    wall = {side: [number(m["step_ms"]) for m in metas] for side, metas in runs.items()}
    cpu = {side: [number(m["step_cpu_ms"]) for m in metas] for side, metas in runs.items()}
    for side, times in wall.items():
        report.add(
            measured="step",
            graph=subject.name,
            arithmetic=graph.arithmetic,
            side=side,
            step_ms=spread(times)["median"],
            low_quartile=spread(times)["low"],
            high_quartile=spread(times)["high"],
            step_cpu_ms=spread(cpu[side])["median"],
            processes=runs[side][0]["processes"],
            n=len(times),
            hardware_steps=stream_steps(graph, len(inputs)),
            samples=len(inputs),
            spikes_compared=compared[side],
            spikes_differing=0,
            what=subject.about,
            load=os.getloadavg()[0],
        )
    ending = ("" if subject.name == "block" else f"_{subject.name}") + (
        "_fixed" if graph.arithmetic == "fixed" else ""
    )
    for kind, times in (("", wall), ("_cpu", cpu)):
        for name, other in (("vs_stock", STOCK), ("vs_fast_stock", FAST)):
            report.ratios[f"{name}{ending}{kind}"] = paired_ratio(times[other], times[FUSED])
        report.ratios[f"vs_stock{ending}_one_step{kind}"] = paired_ratio(
            times[STOCK], times[ONE_STEP]
        )


def number(value: object) -> float:
    assert isinstance(value, float)
    return max(value, 1e-6)  # processor time is counted in hundredths of a second


def check(graph: SpikeGraph, side: str, expected: SpikeTrace, got: SpikeTrace) -> int:
    """How many spikes were compared; ValueError if one differs."""
    comparison = compare_traces(graph, expected, got)
    if not comparison.same:
        raise ValueError(f"{side}: {comparison.first}; no time is taken")
    return comparison.compared


def time_torch(
    report: Report,
    model: SpikingTransformer,
    graphs: Mapping[str, SpikeGraph],
    images: Tensor,
    about: str,
    args: argparse.Namespace,
) -> None:
    """Inference of torch in both precisions beside the reference in both arithmetics."""
    doubled = {d: copy_of(model, d) for d in (torch.float64, torch.float32)}
    inputs = to_inputs(graphs["float"], images)

    def infer(dtype: torch.dtype) -> None:
        with torch.no_grad():
            for batch in images.to(dtype).split(64):
                doubled[dtype](batch)

    def refer(arithmetic: str) -> None:
        run_reference(graphs[arithmetic], inputs, record=[])

    sides = {
        "torch, float64": lambda: infer(torch.float64),
        "torch, float32": lambda: infer(torch.float32),
        "reference, float64": lambda: refer("float"),
        "reference, fixed point": lambda: refer("fixed"),
    }
    # Of one thread the processor's time is the time on an idle machine; waiting is no work.
    clock = time.process_time if args.threads == 1 else time.perf_counter
    taken = seconds_in_turns(sides, repeats=args.repeats, warm_up=1, clock=clock)
    for side, seconds in taken.items():
        report.add(
            measured="inference",
            side=side,
            network=about,
            milliseconds_per_image=1e3 * spread(seconds)["median"] / len(images),
            n=len(seconds),
            images=len(images),
            threads=args.threads,
            clock="cpu" if args.threads == 1 else "wall",
        )
    pairs = {
        "vs_torch": ("torch, float64", "reference, float64"),
        "vs_torch_fp32": ("torch, float32", "reference, float64"),
        "vs_torch_fixed": ("torch, float32", "reference, fixed point"),
    }
    for name, (theirs, ours) in pairs.items():
        report.ratios[name] = paired_ratio(taken[theirs], taken[ours])


def copy_of(model: SpikingTransformer, dtype: torch.dtype) -> SpikingTransformer:
    """The same network in another precision."""
    return copy.deepcopy(model).to(dtype).eval()


if __name__ == "__main__":
    main()
