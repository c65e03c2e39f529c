"""`spikingmoe energy`."""

from __future__ import annotations

from jsonargparse import Namespace

from hardware.energy import get_table
from hardware.lowering import lower
from spikingmoe.cli.chain import (
    load_twins,
    model_name,
    open_data,
    open_run,
    output_folder,
    test_images,
)
from spikingmoe.cli.console import nanojoules, number, percent, say, show_table
from spikingmoe.cli.metrics import base_metrics, energy_metrics, test_accuracy, write_metrics


def run(args: Namespace) -> int:
    """Counts times a cost table, for the run and its twins."""
    table = get_table(args.costs)
    trained = open_run(args.run)
    if trained.model_config.is_spiking:
        lower(trained.model)  # refuses what cannot be lowered before twins are trained
    elif not table.prices_ann:
        raise ValueError(
            f"{args.run}: is a ReLU network, which cost table '{args.costs}' has no price for; "
            "use --costs horowitz45"
        )
    data = open_data(trained, args)
    split = test_images(data, args.images)
    out = output_folder(args.out, trained.folder / "energy")
    runs = {
        model_name(trained): trained,
        **load_twins(trained, trained.folder / "twins", data, make=args.twins),
    }
    metrics = energy_metrics(runs, split, [args.costs], None)
    accuracy = {name: test_accuracy(r, data) for name, r in runs.items()}
    show_energy(metrics, accuracy, args.costs)
    own, *others = runs
    metrics = {
        **base_metrics("energy", trained),
        "accuracy": {
            "test": {"torch": accuracy[own], "samples": len(data.test)},
            "twins": {name: accuracy[name] for name in others},
        },
        **metrics,
    }
    say(f"metrics: {write_metrics(out, metrics)}")
    return 0


def show_energy(metrics: dict, accuracy: dict[str, float], costs: str) -> None:
    """Energy of the model and its twins under one table, its parts and its boundary."""
    reports = metrics["energy"][costs]
    rows = []
    for name, report in reports.items():
        band = report["energy_pj_per_sample"]
        rows.append(
            [
                name,
                percent(accuracy.get(name)),
                number(report["synops_per_sample"]),
                nanojoules(band["value"]),
                f"{nanojoules(band['low'])} .. {nanojoules(band['high'])}",
            ]
        )
    show_table(
        f"estimated energy per image, {costs}",
        ["model", "test accuracy", "synaptic operations", "energy", "low .. high"],
        rows,
    )
    if "relu" in reports:
        say("relu: multiply-accumulates in place of synaptic operations")
    first = next(iter(reports.values()))
    show_table(
        f"parts of {next(iter(reports))}",
        ["part", "synaptic operations", "energy"],
        [
            [part, number(v["synops_per_sample"]), nanojoules(v["energy_pj_per_sample"]["value"])]
            for part, v in first["by_part"].items()
        ],
    )
    say(f"boundary: {first['boundary']}")
