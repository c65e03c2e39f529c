"""The energy model against others: a brute-force count, NeuroBench, SpikingJelly and SANA-FE.

Three questions on one trained model whose spikes are binary throughout (unrolled residual streams, score rows, binary
input), in fixed point, on test images:

- Are operations counted right? Each against a loop that walks the connections of every single spike.
- Do others count the same in torch? NeuroBench and SpikingJelly's `op_counter`, layer by layer.
- Is the price right? SANA-FE, a simulator of Loihi 1 by others, on the same cores: the same spikes, then energy by
  part of the network and unit of the chip, messages and hops against our table `loihi1-fitted`.

Where two sides differ, the reason is counted on its own; what is left over must be within the tolerance of the row,
or the exit code is 1.

    spikingmoe train --preset digits --data digits-binary --out RUN
    python benchmarks/energy_crosscheck.py RUN --json benchmarks/results/energy_crosscheck.json \\
        --markdown benchmarks/results/energy_crosscheck.md
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script: the folder of `benchmarks`

import numpy as np
import torch
from torch import Tensor

from benchmarks.crosscheck.brute_force import count_by_spikes
from benchmarks.crosscheck.layers import count_layers
from benchmarks.crosscheck.sanafe import TABLE, UNITS, ChipRun, of_unit, run_both
from benchmarks.harness import PACKAGES, Report, print_table, versions
from hardware.energy import price
from hardware.energy.parts import part_order
from hardware.files import write_bytes
from hardware.lowering import lower
from hardware.passes.quantise import quantise
from hardware.passes.scores_to_rows import scores_to_rows
from spikingmoe.data import load_data_for
from spikingmoe.model import SpikingTransformer
from spikingmoe.train.checkpoint import load_run

OTHERS = ("neurobench", "spikingjelly", "sanafe")
COUNT_TOLERANCE = 0.01  # of operations in torch; they are in fact equal
EXACT = 1e-9  # relative: the same terms, added in another order
COLUMNS = (
    "check",
    "what",
    "unit",
    "ours",
    "theirs",
    "difference",
    "left",
    "tolerance",
    "holds",
    "why",
)
WHY = {
    "shift registers": "SANA-FE's synapses delay by 6 steps at most: registers hold what must wait, and send it on in "
    "the place of its source",
    "one price per core": "SANA-FE charges all synapses of a core as those of one kind, we each by its own",
    "late clears": "SANA-FE clears readouts and, where a window begins, neurons without memory by an update of "
    "their own",
}
LATENCY = (
    "ours is the barrier that closes a step, a floor; theirs has the work of the slowest core and 1.8 us for a "
    "barrier of the whole chip on top: not the same thing"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 all rows hold, 1 one does not, 2 bad input."""
    args = parse_arguments(arguments)
    try:
        return run(args)
    except (ValueError, OSError, ImportError) as error:
        print(f"energy_crosscheck: {' '.join(str(error).split())}", file=sys.stderr)
        return 2


def run(args: argparse.Namespace) -> int:
    """Compare, print and write what is asked for."""
    torch.set_num_threads(args.threads)
    trained = load_run(args.run)
    data = load_data_for(trained.model_config, trained.train_config.data, args.data_dir)
    report = Report(seeds=[trained.train_config.seed], versions=versions((*PACKAGES, *OTHERS)))
    measure(report, trained.model, data.test.first(args.images + 1).images)
    for check, rows in _by_check(report).items():
        print_table(f"{check}, {rows[0]['n']} images", [_shown(row) for row in rows])
    report.print_end()
    if args.json:
        report.write(args.json)
    if args.markdown:
        write_bytes(args.markdown, markdown(report).encode())
    wrong = [
        f"{row['check']}, {row['what']} {row['unit']}" for row in report.rows if not row["holds"]
    ]
    for one in wrong:
        print(f"beyond its tolerance: {one}", file=sys.stderr)
    return 1 if wrong else 0


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", metavar="RUN", help="a run of a model trained on digits-binary")
    parser.add_argument("--data-dir", help="folder of the data sets that are not installed")
    parser.add_argument("--images", type=int, default=8, help="test images, the first ones (8)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (1)")
    parser.add_argument("--json", metavar="FILE", help="write rows and ratios there")
    parser.add_argument("--markdown", metavar="FILE", help="write the tables there")
    args = parser.parse_args(arguments)
    if args.images < 1:
        parser.error(f"images={args.images} must be at least 1")
    return args


def measure(report: Report, model: SpikingTransformer, images: Tensor) -> None:
    """All rows; the last image only closes SANA-FE's run."""
    tell("SANA-FE: the same network on the same cores")
    graph = scores_to_rows(quantise(lower(model, residual="unrolled", input="binary")))
    chip = run_both(graph, images)
    tell("brute force: every spike along its connections")
    brute = count_by_spikes(graph, chip.trace, chip.layout)
    for operation in chip.counts.operations:
        ours, theirs = chip.counts.totals[operation], brute.get(operation, 0)
        add(report, "brute force", str(operation), "", ours, theirs, tolerance=0.0, n=chip.samples)
    tell("NeuroBench and SpikingJelly: layer by layer")
    for layer in count_layers(model, images[:-1]):
        times = f"times {layer.factor}: " if layer.factor > 1 else ""
        add(
            report,
            layer.by,
            layer.layer,
            "synops",
            layer.ours,
            layer.theirs,
            explained=(1 - layer.factor) * layer.theirs,
            tolerance=COUNT_TOLERANCE if layer.compared else None,
            n=chip.samples,
            why=f"{times}{layer.why}",
        )
    add_chip(report, chip)


def add_chip(report: Report, chip: ChipRun) -> None:
    """The rows of SANA-FE."""
    n, spikes = chip.samples + 1, chip.compared
    same = spikes - chip.differing
    add(report, "SANA-FE", "spikes and logits", "", spikes, same, tolerance=0.0, n=n)
    why = f"{chip.cores} cores; registers, fill and drain counted on both sides"
    for unit in UNITS:
        ours, theirs = chip.events_pj[unit], chip.told_pj[unit]
        add(
            report,
            "SANA-FE",
            "whole run",
            f"{unit} pJ",
            ours,
            theirs,
            tolerance=EXACT,
            n=n,
            why=why,
        )
    keys = set(chip.ours) | set(chip.theirs)
    for unit in (*UNITS, "messages", "hops"):
        for part in sorted({part for part, one in keys if one == unit}, key=part_order):
            ours, theirs = (side.get((part, unit), 0.0) for side in (chip.ours, chip.theirs))
            if ours or theirs:
                reasons = {r: s.get((part, unit), 0.0) for r, s in chip.explained.items()}
                _add_share(report, part, unit, ours, theirs, reasons, chip.samples)
        ours, theirs = of_unit(chip.ours, unit), of_unit(chip.theirs, unit)
        reasons = {reason: of_unit(shares, unit) for reason, shares in chip.explained.items()}
        _add_share(report, "all parts", unit, ours, theirs, reasons, chip.samples)
    static = price(chip.counts, TABLE).static
    assert static is not None
    add(
        report,
        "SANA-FE",
        "latency of a step",
        "ns",
        static.latency_ns.value / chip.counts.time_steps,
        1e3 * float(np.mean(chip.latency_us)),
        tolerance=None,
        n=len(chip.latency_us),
        why=LATENCY,
    )
    own, theirs = (
        sum(
            value for (part, unit), value in shares.items() if unit in UNITS and part != "registers"
        )
        for shares in (chip.ours, chip.theirs)
    )
    report.ratios["sanafe_vs_loihi1_fitted_without_registers"] = theirs / own


def _add_share(
    report: Report,
    part: str,
    unit: str,
    ours: float,
    theirs: float,
    reasons: Mapping[str, float],
    n: int,
) -> None:
    told = [f"{reason} {value:+,.0f}" for reason, value in reasons.items() if abs(value) > 0.5]
    add(
        report,
        "SANA-FE",
        part,
        f"{unit} pJ" if unit in UNITS else unit,
        ours,
        theirs,
        explained=sum(reasons.values()),
        tolerance=EXACT,
        n=n,
        why=", ".join(told),
    )


def add(
    report: Report,
    check: str,
    what: str,
    unit: str,
    ours: float,
    theirs: float,
    *,
    tolerance: float | None,
    n: int,
    explained: float = 0.0,
    why: str = "",
) -> None:
    """A row; `left` is what no reason explains, relative to theirs.

    Args:
        tolerance: of `left`; None where the two sides do not do the same work.
        explained: what the reasons add to ours.
    """
    left = (theirs - ours - explained) / (abs(theirs) or abs(ours) or 1.0)
    report.add(
        check=check,
        what=what,
        unit=unit,
        ours=ours,
        theirs=theirs,
        difference=(theirs - ours) / ours if ours else None if theirs else 0.0,
        explained=explained,
        left=None if tolerance is None else left,
        tolerance=tolerance,
        holds=tolerance is None or abs(left) <= tolerance,
        why=why,
        n=n,
    )


def tell(stage: str) -> None:
    """Say on stderr how far it is."""
    print(stage, file=sys.stderr, flush=True)


def markdown(report: Report) -> str:
    """The rows as tables, with what one must know to read them."""
    lines = ["# The energy model against others", ""]
    for check, rows in _by_check(report).items():
        lines += [f"## {check}, {rows[0]['n']} images", ""]
        shown = [_shown(row) for row in rows]
        titles = list(shown[0])
        lines += ["| " + " | ".join(titles) + " |", "|" + " --- |" * len(titles)]
        lines += ["| " + " | ".join(one.values()) + " |" for one in shown]
        lines.append("")
    lines += [f"- {reason}: {why}." for reason, why in WHY.items()]
    lines += [
        "",
        "Numbers are sums over the images; differences are relative to ours. `left` is what no reason explains, relative to theirs; rows without "
        "tolerance are not the same work on both sides.",
        "",
        f"`{report.command}`; seeds {report.seeds}; "
        + ", ".join(f"{k} {v}" for k, v in report.versions.items()),
        "",
    ]
    return "\n".join(lines)


def _by_check(report: Report) -> dict[str, list[dict[str, object]]]:
    found: dict[str, list[dict[str, object]]] = {}
    for row in report.rows:
        found.setdefault(str(row["check"]), []).append(row)
    return found


def _shown(row: Mapping[str, object]) -> dict[str, str]:
    return {column: _cell(column, row[column]) for column in COLUMNS if column != "check"}


def _cell(column: str, value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, (int, float)):
        if column in ("left", "tolerance"):
            return f"{value:.1e}" if value else "0"
        if column == "difference":
            return f"{round(100 * value, 2) + 0.0:+.2f} %"  # not -0.00
        return f"{value:,.0f}"
    return str(value)


if __name__ == "__main__":
    sys.exit(main())
