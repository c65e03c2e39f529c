"""`spikingmoe evaluate`."""

from __future__ import annotations

from jsonargparse import Namespace

from spikingmoe.analysis.reading import routers_of
from spikingmoe.cli.chain import open_data, open_run, output_folder
from spikingmoe.cli.console import percent, say, show_table
from spikingmoe.cli.metrics import base_metrics, write_metrics
from spikingmoe.train.fit import evaluate


def run(args: Namespace) -> int:
    """Test accuracy, and how the experts were used."""
    trained = open_run(args.run)
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
    path = write_metrics(
        out,
        {
            **base_metrics("evaluate", trained),
            "accuracy": {"test": {"torch": accuracy, "samples": len(data.test)}},
            "experts": {"load": loads},
        },
    )
    say(f"metrics: {path}")
    return 0
