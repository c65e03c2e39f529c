"""How the CIFAR presets lie on Loihi chips, with a readout of every token and of sums over tokens.

    python benchmarks/mapping.py --data-dir DIR --json benchmarks/results/mapping.json \\
        --pictures benchmarks/results/mapping

Presets without a bundled checkpoint have untrained weights and norms that have seen images
(`lowering_cases.make_model`): what a chip must hold does not depend on weights, and traffic is of such
neurons. In fixed point the logits of both heads are equal, or this script stops.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run as a script: the folder of `benchmarks`

import numpy as np

from benchmarks.agreement import check_outputs
from benchmarks.harness import Report
from benchmarks.lowering_cases import Case, make_model
from hardware.energy import Operation, OperationCounts, count_operations
from hardware.files import write_bytes
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import size
from hardware.loihi.chips import CHIPS
from hardware.loihi.mapping import map_graph
from hardware.lowering import lower
from hardware.passes.pool_tokens import pool_tokens
from hardware.passes.quantise import quantise
from hardware.simulate import simulate
from hardware.trace import SpikeTrace
from spikingmoe.analysis.chip_picture import chip_png

READOUT = "head.readout"
CASES = {
    "cifar-tiny": Case(preset="cifar-tiny", trained="cifar-tiny"),
    "cifar-small": Case(preset="cifar-small"),
    "cifar-base": Case(preset="cifar-base"),
    "cifar-small 100": Case(preset="cifar-small", options={"num_classes": 100}),
}


def main() -> int:
    """Returns the exit code: 0 good, 2 bad input."""
    parser = argparse.ArgumentParser(description="How the CIFAR presets lie on Loihi chips.")
    parser.add_argument("--data-dir", help="folder with CIFAR-10")
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--pictures", type=Path, help="folder for a picture of each chip")
    parser.add_argument("--models", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--chip", choices=list(CHIPS), default="loihi2")
    parser.add_argument("--images", type=int, default=2, help="whose spikes are the traffic (2)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and placement (0)")
    args = parser.parse_args()
    try:
        run(args)
    except (ValueError, OSError) as error:
        print(f"mapping: {error}", file=sys.stderr)
        return 2
    return 0


def run(args: argparse.Namespace) -> None:
    """Map every model with both heads."""
    if args.images < 1:
        raise ValueError(f"images={args.images}; use at least 1")
    check_outputs(args.json, None)
    report = Report(seeds=[args.seed])
    for name in args.models:
        model, split, words = make_model(CASES[name], args.images, args.data_dir, args.seed)
        direct = quantise(lower(model))
        first = simulate(direct, split.images)
        for head, graph in (("direct", direct), ("pooled", pool_tokens(direct))):
            trace = first if graph is direct else simulate(graph, split.images)
            if not np.array_equal(trace.logits, first.logits):
                raise ValueError(f"{name}: the logits of the {head} head differ")
            row, picture = measure(graph, trace, args)
            report.add(model=name, head=head, n=args.images, images=words, **row)
            if args.pictures:
                file = f"{name.replace(' ', '-')}-{head}-{args.chip}.png"
                write_bytes(args.pictures / file, picture)
            if args.json:
                report.write(args.json)
    report.print()
    report.print_end()


def measure(
    graph: SpikeGraph, trace: SpikeTrace, args: argparse.Namespace
) -> tuple[dict[str, object], bytes]:
    """(row of figures, picture of the chip)."""
    started = time.perf_counter()
    mapped = map_graph(graph, args.chip, trace=trace, seed=args.seed)
    seconds = time.perf_counter() - started
    counts = count_operations(graph, trace)
    head = [p for p in graph.populations if p.startswith(READOUT)]
    row = {
        "neurons": sum(size(p) for p in graph.populations.values()),
        "cores": mapped.cores,
        "chips": mapped.mesh.chips,
        "binding": mapped.binding,
        "problems": list(mapped.problems),
        "cores_of_head": sum(len(mapped.cores_of(p)) for p in head),
        "accumulates_of_head": readout_operations(graph, counts, Operation.ACCUMULATE),
        "multiply_accumulates_of_head": readout_operations(
            graph, counts, Operation.MULTIPLY_ACCUMULATE
        ),
        "synops_per_image": counts.synops_per_sample,
        **{f"{limit}_most": most for limit, (_, most) in mapped.utilisation.items()},
        "hops": mapped.placed.hops,
        "hops_row_major": mapped.row_major.hops,
        "hops_random": float(np.mean([one.hops for one in mapped.random])),
        "seconds": seconds,
    }
    return row, chip_png(mapped.as_dict())


def readout_operations(graph: SpikeGraph, counts: OperationCounts, operation: Operation) -> float:
    """Per image, of the synapses onto the readout and onto what it reads."""
    found = sum(
        tally.operations.get(operation, 0)
        for synapse, tally in zip(graph.synapses, counts.synapses, strict=True)
        if synapse.target.startswith(READOUT)
    )
    return found / counts.samples


if __name__ == "__main__":
    sys.exit(main())
