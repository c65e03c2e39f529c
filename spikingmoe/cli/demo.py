"""`spikingmoe demo`: the whole chain on images that come with a dependency."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from jsonargparse import Namespace

from hardware.ir.graph import SpikeGraph
from hardware.loihi.mapping import map_graph
from hardware.trace import SpikeTrace
from spikingmoe.cli.chain import Clock, check_time_limit, model_name, output_folder, train_run
from spikingmoe.cli.comparison import accuracies, verify_run
from spikingmoe.cli.console import say, show_table
from spikingmoe.cli.map import write_mapping
from spikingmoe.cli.metrics import (
    base_metrics,
    energy_metrics,
    expert_metrics,
    latency_metrics,
    test_accuracy,
    write_metrics,
)
from spikingmoe.cli.report import make_facts, write_report
from spikingmoe.cli.train import configurations
from spikingmoe.cli.twins import chosen_twins, load_twins, tables_for
from spikingmoe.cli.verify import show_verification
from spikingmoe.data import load_data
from spikingmoe.report.findings import main_table

CHIP = "loihi2"
TABLES = ["loihi1"]  # beside those that price the twins


def run(args: Namespace) -> int:
    """Train, lower, run on Lava, verify, estimate energy, report; exit code 1 if spikes differ."""
    started = time.perf_counter()
    check_time_limit(args.time_limit)
    twin_names = chosen_twins(args.twins)
    config, settings = configurations(args, "digits", "digits")
    data, out, clock = load_data("digits"), Path(args.out or "demo"), Clock()
    data.test.first(args.samples)
    with clock.stage("train"):
        trained = train_run(config, settings, data, out, resume=args.resume, title="mixture")
    with clock.stage("twins"):
        twins = load_twins(trained, out / "twins", data, make=twin_names)
    runs = {model_name(trained): trained, **twins}
    verified = verify_run(
        trained,
        data.test,
        clock,
        samples=args.samples,
        time_limit=args.time_limit,
        keep=len(data.test),
    )
    with clock.stage("energy"):
        energy = energy_metrics(runs, data.test, [*tables_for(twins), *TABLES], verified.counts)
    accuracy = accuracies(verified, data.test, args.samples)
    accuracy["twins"] = {name: test_accuracy(twin, data) for name, twin in twins.items()}
    graph = replace(verified.fixed_graph, notes={**verified.fixed_graph.notes, "data": data.name})
    program = out / "digits-fixed.program"
    metrics: dict = {
        **base_metrics("demo", trained),
        "accuracy": accuracy,
        "verify": verified.metrics(),
        **energy,
        "experts": expert_metrics(verified.traces["reference"], verified.graph),
        "latency_steps": latency_metrics(verified.graph),
        "seconds": clock.seconds,
    }
    with clock.stage("report"):
        graph.save(str(program))
        metrics["mapping"] = {program.name: _mapped(graph, verified.traces["lava_fixed"], program)}
        names = ("reference", "lava_float", "lava_fixed")
        traces = {name: verified.traces[name] for name in names}
        page = write_report(out, make_facts(trained, data, verified.graph, traces, metrics))
    clock.seconds["total"] = round(time.perf_counter() - started, 1)
    write_metrics(out, metrics)
    show_verification(verified)
    show_table(
        "one network on torch, Lava floating and Lava fixed point (energies: estimates, horowitz45)",
        ["", "value", "n, range"],
        main_table(metrics),
    )
    say(f"{clock.seconds['total']:.0f} s of work")
    say(f"metrics: {out / 'metrics.json'}   program: {program}   report: {page}")
    return 0 if verified.same else 1


def _mapped(graph: SpikeGraph, trace: SpikeTrace, program: Path) -> dict[str, object]:
    """As `spikingmoe map` lays the program out and keeps it."""
    out = output_folder(None, Path(f"{program}.map"))
    mapped = map_graph(graph, CHIP, trace=trace)
    words = f"spikes of {trace.samples} test images"
    return write_mapping(mapped, graph.fingerprint, words, str(program), out)
