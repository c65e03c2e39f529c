"""Does every preset lower, how long does it take, how much memory, and is it the same network?

A row per network, each measured in a process of its own: seconds and peak memory (resident set) of
lowering, quantising, saving and loading; populations, neurons, synapses; then torch in float64
against the reference, spike for spike, and float32 beside it. Untrained networks are settled first
(norms with the statistics of images), so that neurons fire: the rates are in the row.

Rows are written one by one; with --json a run that was cut off goes on where it stopped.

    python benchmarks/lowering.py --data-dir DIR --json benchmarks/results/lowering.json
    python benchmarks/lowering.py --presets digits "cifar-tiny sdsa"
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from harness import Report, print_table
from lowering_cases import Case, all_cases, make_model

from hardware.files import write_json
from hardware.ir import LIF, SpikeGraph
from hardware.ir.fan_out import count_synapses
from hardware.ir.nodes import size
from hardware.lowering import compare_with_torch, lower
from hardware.passes.quantise import quantise
from hardware.simulate import simulate_batches
from hardware.trace import SpikeTrace

SHOWN = {
    "sizes and costs": (
        *("network", "populations", "neurons", "synapses", "lower_s", "quantise_s", "save_s"),
        *("load_s", "lowering_peak_mib", "program_mib"),
    ),
    "torch against the reference": (
        *("network", "n", "compared", "differing", "predictions_differ", "float32_diverged"),
        *("float32_margin", "firing_rate", "silent_populations", "accuracy", "peak_mib"),
    ),
}


def main() -> None:
    args = parse_arguments()
    if args.worker:
        measure(all_cases()[args.worker], args.worker, args)
        return
    report = Report(seeds=[args.seed])
    if args.json and Path(args.json).is_file() and not args.again:
        report.rows = json.loads(Path(args.json).read_text())["rows"]
    for name in args.presets:
        done = next((row for row in report.rows if row["network"] == name), None)
        if done is None:
            report.add(**run_worker(name, args))
            if args.json:
                finish(report)
                report.write(args.json)
    finish(report)
    chosen = [row for row in report.rows if row["network"] in args.presets]
    for title, columns in SHOWN.items():
        print_table(title, [{c: row.get(c) for c in columns} for row in chosen])
    report.print_end()
    if args.json:
        report.write(args.json)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = list(all_cases())
    parser.add_argument(
        "--presets",
        nargs="+",
        default=names,
        metavar="NAME",
        help=f"networks to measure; all by default: {', '.join(names)}",
    )
    parser.add_argument("--images", type=int, default=32, help="untrained; default %(default)s")
    parser.add_argument(
        "--trained-images", type=int, default=1000, help="trained; default %(default)s"
    )
    parser.add_argument("--data-dir", metavar="DIR", help="CIFAR's files; else noise is shown")
    parser.add_argument("--threads", type=int, default=2, help="of torch; default %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default %(default)s")
    parser.add_argument("--json", metavar="FILE", help="write the results there, row by row")
    parser.add_argument("--again", action="store_true", help="measure rows that FILE has already")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--row", help=argparse.SUPPRESS)
    args = parser.parse_args()
    for name in args.presets:
        if name not in names:
            parser.error(f"--presets {name!r} is unknown; use some of {', '.join(names)}")
    for name in ("images", "trained_images", "threads"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} {getattr(args, name)} must be at least 1")
    return args


def run_worker(name: str, args: argparse.Namespace) -> dict:
    """The row of one network, from a process of its own: its peak memory is nobody else's."""
    print(f"{name} ...", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        row = os.path.join(folder, "row.json")
        words = [sys.executable, __file__, "--worker", name, "--row", row]
        for option in ("images", "trained_images", "threads", "seed"):
            words += [f"--{option.replace('_', '-')}", str(getattr(args, option))]
        if args.data_dir:
            words += ["--data-dir", args.data_dir]
        subprocess.run(words, check=True)
        return json.loads(Path(row).read_text())


def measure(case: Case, name: str, args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    count = args.trained_images if case.trained else args.images
    model, split, words = make_model(case, count, args.data_dir, args.seed)
    row: dict = {"network": name, "n": len(split), "images": words, "trained": bool(case.trained)}
    row |= {"parameters": sum(p.numel() for p in model.parameters()), "residual": case.residual}
    row["before_mib"] = peak_mib()
    with timed(row, "lower_s"):
        graph = lower(model, residual=case.residual)  # type: ignore[arg-type]
    with timed(row, "quantise_s"):
        fixed = quantise(graph)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "program")
        with timed(row, "save_s"):
            fixed.save(path)
        row["program_mib"] = round(os.path.getsize(path) / 2**20, 1)
        with timed(row, "load_s"):
            loaded = SpikeGraph.load(path)
    row["lowering_peak_mib"] = peak_mib()
    assert loaded.fingerprint == fixed.fingerprint
    row |= {
        "populations": len(graph.populations),
        "neurons": sum(size(p) for p in graph.populations.values()),
        "synapse_groups": len(graph.synapses),
        "synapses": count_synapses(graph),
        "depth": graph.depth[graph.readout.name],
    }
    rates = Rates(graph)
    batch = 64 if row["neurons"] * graph.time_steps < 2e6 else 8
    with timed(row, "compare_s"):
        agreement = compare_with_torch(
            model,
            graph,
            split.images,
            residual=case.residual,  # type: ignore[arg-type]
            batch=batch,
            watch=rates.add,
        )
    with timed(row, "reference_fixed_s"):
        traces = simulate_batches(fixed, split.images, size=batch)
        fixed_logits = np.concatenate([trace.logits for trace in traces])
    comparison, rounding = agreement.comparison, agreement.rounding
    labels = split.labels.numpy()
    row |= {
        "compared": comparison.compared,
        "differing": comparison.differing,
        "predictions_differ": comparison.predictions_differ,
        "same": comparison.same,
        "first_divergence": str(comparison.first) if comparison.first else None,
        "float32_diverged": rounding.images_diverged,
        "float32_margin": rounding.largest_margin,
        **rates.row(),
        "accuracy": share(agreement.torch_logits, labels) if case.trained else None,
        "accuracy_fixed": share(fixed_logits, labels) if case.trained else None,
        "fixed_predictions_differ": int(
            (fixed_logits.argmax(1) != agreement.torch_logits.argmax(1)).sum()
        ),
        "peak_mib": peak_mib(),
    }
    write_json(args.row, row)


@contextmanager
def timed(row: dict, name: str) -> Iterator[None]:
    """Wall seconds under `name`, and this process's processor time, which a busy machine changes less."""
    started, worked = time.perf_counter(), time.process_time()
    yield
    row[name] = round(time.perf_counter() - started, 3)
    row[name.removesuffix("_s") + "_cpu_s"] = round(time.process_time() - worked, 3)


def peak_mib() -> float:
    """Largest resident set of this process so far."""
    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1)


def share(logits: np.ndarray, labels: np.ndarray) -> float:
    return float((logits.argmax(axis=1) == labels).mean())


class Rates:
    """Spikes per neuron and step of every population, added up over batches."""

    def __init__(self, graph: SpikeGraph) -> None:
        self.spikes = {p.name: 0 for p in graph.of_kind(LIF)}
        self.slots = dict.fromkeys(self.spikes, 0)

    def add(self, trace: SpikeTrace) -> None:
        for name in self.spikes:
            self.spikes[name] += int(np.count_nonzero(trace.spikes[name]))
            self.slots[name] += trace.spikes[name].size

    def row(self) -> dict[str, object]:
        rates = {name: self.spikes[name] / self.slots[name] for name in self.spikes}
        return {
            "firing_rate": sum(self.spikes.values()) / sum(self.slots.values()),
            "lowest_rate": min(rates.values()),
            "highest_rate": max(rates.values()),
            "silent_populations": [name for name, rate in rates.items() if rate == 0],
        }


def finish(report: Report) -> None:
    """Claims over all rows: nothing differs, and lowering of the largest CIFAR preset is quick."""
    report.ratios["networks"] = float(len(report.rows))
    report.ratios["networks_that_differ"] = float(sum(not row["same"] for row in report.rows))


if __name__ == "__main__":
    main()
