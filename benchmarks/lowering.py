"""Does every preset lower, how long does it take, how much memory, and is it the same network?

A row per network, each measured in a process of its own: seconds and peak memory (resident set) of
lowering, quantising, saving and loading; populations, neurons, synapses; then torch in float64
against the reference, spike for spike, and float32 beside it; then the reference against every
other backend in both arithmetics (`backends` in the row): torch in integers, Lava's fused processes,
and with --stock Lava's own on a few images. Untrained networks are settled first (norms with the
statistics of images), so that neurons fire: the rates are in the row.

Rows are written one by one; with --json a run that was cut off goes on where it stopped.

    python benchmarks/lowering.py --data-dir DIR --json benchmarks/results/lowering.json
    python benchmarks/lowering.py --presets digits "cifar-tiny sdsa"
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from harness import Report, print_table
from lowering_cases import all_cases
from lowering_row import measure

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
COUNTS = ("lava", "stock", "integers")  # images on each backend
BACKENDS = "the reference against other backends"


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
    pairs = [
        {"network": row["network"], **pair} for row in chosen for pair in row.get("backends", [])
    ]
    print_table(BACKENDS, pairs)
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
    parser.add_argument(
        "--lava", type=int, default=32, help="on fused Lava processes; default %(default)s, 0: none"
    )
    parser.add_argument("--stock", type=int, default=0, help="on Lava's own; default %(default)s")
    parser.add_argument(
        "--integers", type=int, default=32, help="in torch's integers; default %(default)s, 0: none"
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
    for name in COUNTS:
        if getattr(args, name) < 0:
            parser.error(f"--{name} {getattr(args, name)} must not be negative")
    return args


def run_worker(name: str, args: argparse.Namespace) -> dict:
    """The row of one network, from a process of its own: its peak memory is nobody else's."""
    print(f"{name} ...", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        row = os.path.join(folder, "row.json")
        words = [sys.executable, __file__, "--worker", name, "--row", row]
        for option in (*COUNTS, "images", "trained_images", "threads", "seed"):
            words += [f"--{option.replace('_', '-')}", str(getattr(args, option))]
        if args.data_dir:
            words += ["--data-dir", args.data_dir]
        subprocess.run(words, check=True)
        return json.loads(Path(row).read_text())


def finish(report: Report) -> None:
    """Claims over all rows: nothing differs, and lowering of the largest CIFAR preset is quick."""
    report.ratios["networks"] = float(len(report.rows))
    report.ratios["networks_that_differ"] = float(sum(not row["same"] for row in report.rows))
    pairs = [pair for row in report.rows for pair in row.get("backends", [])]
    report.ratios["backends_compared"] = float(len(pairs))
    report.ratios["backends_that_differ"] = float(sum(not pair["same"] for pair in pairs))


if __name__ == "__main__":
    main()
