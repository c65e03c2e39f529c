"""`spikingmoe energy`."""

from __future__ import annotations

from jsonargparse import Namespace

from hardware.energy import CostTable
from hardware.lowering import lower
from spikingmoe.cli.chain import (
    model_name,
    open_data,
    open_run,
    output_folder,
    test_images,
)
from spikingmoe.cli.console import nanojoules, number, percent, say, show_table
from spikingmoe.cli.cost_tables import open_tables
from spikingmoe.cli.fewer_steps import open_twins, test_in_steps, with_time_steps
from spikingmoe.cli.metrics import base_metrics, energy_metrics, test_accuracy, write_metrics
from spikingmoe.cli.twins import as_it_runs, chosen_twins
from spikingmoe.train.checkpoint import Run


def run(args: Namespace) -> int:
    """Counts times cost tables, for the run and its twins."""
    tables, twin_names = open_tables(args.costs), chosen_twins(args.twins)
    as_trained = as_it_runs(open_run(args.run))
    trained = with_time_steps(as_trained, args.time_steps)
    if trained.model_config.is_spiking:
        lower(trained.model)  # refuses what cannot be lowered before twins are trained
    else:
        _check_priced(args.run, trained, tables)
    whole = open_data(as_trained, args)
    data = test_in_steps(whole, as_trained, trained)
    split = test_images(data, args.images)
    out = output_folder(args.out, trained.folder / "energy")
    runs = {
        model_name(trained): trained,
        **open_twins(as_trained, trained, whole, make=twin_names),
    }
    metrics = energy_metrics(runs, split, tables, None)
    accuracy = {name: test_accuracy(r, data) for name, r in runs.items()}
    for table in tables:
        show_energy(metrics, accuracy, table.name)
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


def _check_priced(name: str, run: Run, tables: list[CostTable]) -> None:
    """ValueError for a table that has no price for this network without spikes."""
    what, fits = "a ReLU network", {t.name: t.prices_ann for t in tables}
    use = "horowitz45"
    if run.model_config.activation_bits:
        what, fits = "a quantised network", {t.name: t.quantised is not None for t in tables}
        use = "horowitz45-int"
    for table, priced in fits.items():
        if not priced:
            raise ValueError(
                f"{name}: is {what}, which cost table '{table}' has no price for; use --costs {use}"
            )


def show_energy(metrics: dict, accuracy: dict[str, float], costs: str) -> None:
    """Energy of the model and its twins under one table, its parts, its boundary and what it omits."""
    reports = metrics["energy"][costs]
    if not reports:
        say(f"{costs}: has no price for these networks")
        return
    rows = []
    for name, report in reports.items():
        band = report["energy_pj_per_sample"]
        rows.append(
            [
                name,
                percent(accuracy.get(name)),
                number(report["synops_per_sample"]),
                nanojoules(band["value"]),
                _ends(band),
            ]
        )
    show_table(
        f"estimated energy per image, {costs}",
        ["model", "test accuracy", "synaptic operations", "energy", "low .. high"],
        rows,
    )
    for name in ("relu", "quantised_relu"):
        if name in reports:
            say(f"{name}: multiply-accumulates in place of synaptic operations")
    first = next(iter(reports.values()))
    show_table(
        f"parts of {next(iter(reports))}",
        ["part", "synaptic operations", "energy", "low .. high"],
        [
            [
                part,
                number(v["synops_per_sample"]),
                nanojoules(v["energy_pj_per_sample"]["value"]),
                _ends(v["energy_pj_per_sample"]),
            ]
            for part, v in first["by_part"].items()
        ],
    )
    say(f"boundary: {first['boundary']}")
    if static := first.get("static"):
        band, chips = static["energy_pj_per_sample"], static["chips"]
        say(
            f"static power, not in the energies above: at least {nanojoules(band['value'])} "
            f"({_ends(band)}) for {static['steps']} steps on {chips} chip{'s' if chips > 1 else ''}"
        )


def _ends(band: dict[str, float]) -> str:
    return f"{nanojoules(band['low'])} .. {nanojoules(band['high'])}"
