"""`spikingmoe evaluate`."""

from __future__ import annotations

from jsonargparse import Namespace

from spikingmoe.analysis.reading import routers_of
from spikingmoe.cli.chain import open_data, open_run, output_folder
from spikingmoe.cli.console import percent, say, show_table
from spikingmoe.cli.fewer_steps import fewer_steps, parse_steps
from spikingmoe.cli.metrics import base_metrics, write_metrics
from spikingmoe.train.fit import evaluate


def run(args: Namespace) -> int:
    """Test accuracy, and how the experts were used."""
    trained = open_run(args.run)
    if args.time_steps is not None:  # refused before any work is done
        parse_steps(args.time_steps, trained.model_config.time_steps)
    if args.early_exit is not None and not 0 <= args.early_exit < 100:
        raise ValueError(
            f"early_exit={args.early_exit}; use percentage points from 0 to below 100, such as 0.5"
        )
    data = open_data(trained, args)
    out = output_folder(args.out, trained.folder / "evaluate")
    accuracy, seconds, choices = evaluate(trained.model, data.test)
    rows = [
        ["epoch", str(trained.epoch)],
        [f"test accuracy (n = {len(data.test)})", percent(accuracy)],
        ["images per second", f"{len(data.test) / seconds:,.0f}"],
    ]
    loads: dict[str, list[float]] = {}
    for router, counts in zip(routers_of(trained.model), choices, strict=True):
        load = (counts / counts.sum().clamp(min=1)).tolist()
        loads[router] = load
        rows.append([f"load of the experts of {router}", "  ".join(percent(x) for x in load)])
    show_table(f"evaluation of {args.run} on {data.name}", ["", "value"], rows)
    fewer = args.time_steps is not None or args.early_exit is not None
    path = write_metrics(
        out,
        {
            **base_metrics("evaluate", trained),
            "accuracy": {"test": {"torch": accuracy, "samples": len(data.test)}},
            "experts": {"load": loads},
            **({"fewer_steps": fewer_steps(trained, data, args)} if fewer else {}),
        },
    )
    say(f"metrics: {path}")
    return 0
