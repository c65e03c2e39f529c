"""`spikingmoe simulate`."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import Namespace

from hardware.errors import BackendError
from hardware.simulate import BACKENDS, simulate
from spikingmoe.cli.chain import open_program, output_folder, program_data
from spikingmoe.cli.comparison import accuracy
from spikingmoe.cli.console import percent, progress, say, show_table
from spikingmoe.cli.metrics import write_metrics
from spikingmoe.config import unknown
from spikingmoe.train.checkpoint import package_versions


def run(args: Namespace) -> int:
    """Run a program on the first test images and report accuracy and firing rates."""
    if args.backend not in BACKENDS:
        raise BackendError(unknown("backend", args.backend, BACKENDS))
    graph = open_program(args.program)
    data = program_data(graph, args)
    split = data.test.first(args.samples)
    out = output_folder(args.out, Path(f"{args.program}.simulate"))
    arithmetic = args.arithmetic or graph.arithmetic
    with progress(f"{args.backend}, {arithmetic} point, {len(split)} images") as update:
        trace = simulate(
            graph,
            split.images,
            backend=args.backend,
            arithmetic=arithmetic,
            record=[] if args.backend == "loihi" else None,  # what is recorded takes adapters
            progress=update,
            time_limit=args.time_limit,
        )
    share = accuracy(trace.logits, split.labels.numpy())
    show_table(
        f"{args.program} on {trace.meta['backend']}",
        ["", "value"],
        [
            ["arithmetic", str(trace.meta["arithmetic"])],
            [f"accuracy (n = {len(split)})", percent(share)],
            ["seconds", f"{float(str(trace.meta['seconds'])):.1f}"],
            *[
                [key.replace("_", " "), f"{trace.meta[key]}"]
                for key in ("processes", "hardware_steps", "cores", "chips")
                if key in trace.meta
            ],
            *_chip_rows(trace.meta, len(split)),
        ],
    )
    warnings = trace.meta.get("warnings")
    for warning in warnings if isinstance(warnings, list) else []:
        say(f"warning: {warning}")
    metrics = {
        "command": "simulate",
        "program": str(args.program),
        "data": data.name,
        "accuracy": share,
        "samples": len(split),
        "predictions": trace.predictions.tolist(),
        "firing_rates": {name: trace.firing_rate(name) for name in trace.spikes},
        "meta": trace.meta,
        "versions": package_versions(),
    }
    say(f"metrics: {write_metrics(out, metrics)}")
    return 0


def _chip_rows(meta: dict[str, object], samples: int) -> list[list[str]]:
    """What a simulator of a chip says about energy and time, per image."""
    energy, rows = meta.get("energy_pj"), []
    if isinstance(energy, dict):
        rows = [
            [f"{part}, nJ per image", f"{value / samples / 1e3:.3f}"]
            for part, value in energy.items()
        ]
    for key in ("messages", "hops", "latency_us"):
        if key in meta:
            name = f"{key.replace('_us', ', us')} per image"
            rows.append([name, f"{float(str(meta[key])) / samples:,.1f}"])
    return rows
