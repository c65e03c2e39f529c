"""`spikingmoe simulate`."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import Namespace

from hardware.errors import BackendError
from hardware.ir.graph import SpikeGraph
from hardware.simulate import BACKENDS, simulate
from spikingmoe.cli.chain import output_folder
from spikingmoe.cli.comparison import accuracy
from spikingmoe.cli.console import percent, progress, say, show_table
from spikingmoe.cli.metrics import write_metrics
from spikingmoe.config import unknown
from spikingmoe.data import load_data
from spikingmoe.train.bundled import bundled_file
from spikingmoe.train.checkpoint import package_versions


def run(args: Namespace) -> int:
    """Run a program on the first test images and report accuracy and firing rates."""
    if args.backend not in BACKENDS:
        raise BackendError(unknown("backend", args.backend, BACKENDS))
    if bundled_file(args.program) is not None and not Path(args.program).is_file():
        raise ValueError(
            f"{args.program}: is a bundled checkpoint, no program; use "
            f"`spikingmoe lower {args.program} -o {args.program}.program` first"
        )
    graph = SpikeGraph.load(args.program)
    if not args.data and "data" not in graph.notes:
        raise ValueError(f"{args.program}: does not say which data it was trained on; use --data")
    height, _, channels = graph.data_input.shape
    data = load_data(
        args.data or str(graph.notes["data"]),
        args.data_dir,
        image_size=height,
        channels=channels,
        time_steps=graph.time_steps,
        watch=progress,
    )
    split = data.test.first(args.samples)
    out = output_folder(args.out, Path(f"{args.program}.simulate"))
    arithmetic = args.arithmetic or graph.arithmetic
    with progress(f"{args.backend}, {arithmetic} point, {len(split)} images") as update:
        trace = simulate(
            graph,
            split.images,
            backend=args.backend,
            arithmetic=arithmetic,
            progress=update,
            time_limit=args.time_limit,
        )
    share = accuracy(trace, split.labels.numpy())
    show_table(
        f"{args.program} on {trace.meta['backend']}",
        ["", "value"],
        [
            ["arithmetic", str(trace.meta["arithmetic"])],
            [f"accuracy (n = {len(split)})", percent(share)],
            ["seconds", f"{float(str(trace.meta['seconds'])):.1f}"],
            *[
                [key.replace("_", " "), f"{trace.meta[key]}"]
                for key in ("processes", "hardware_steps")
                if key in trace.meta
            ],
        ],
    )
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
