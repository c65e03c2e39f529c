"""`spikingmoe demo`: the whole chain on images that come with a dependency."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

from jsonargparse import Namespace

from spikingmoe.cli.chain import (
    MOE,
    Clock,
    accuracies,
    base_metrics,
    energy_metrics,
    expert_metrics,
    latency_metrics,
    load_twins,
    test_accuracy,
    train_run,
    verify_run,
    write_metrics,
)
from spikingmoe.cli.console import nanojoules, number, percent, say, show_table
from spikingmoe.cli.report import make_facts, write_report
from spikingmoe.cli.train import configurations
from spikingmoe.cli.verify import show_verification
from spikingmoe.data import load_data

TABLES = ["horowitz45", "loihi1"]


def run(args: Namespace) -> int:
    """Train, lower, run on Lava, verify, estimate energy, report; exit code 1 if spikes differ."""
    started = time.perf_counter()
    config, settings = configurations(args, "digits", "digits")
    data, out, clock = load_data("digits"), Path(args.out or "demo"), Clock()
    data.test.first(args.samples)
    with clock.stage("train"):
        trained = train_run(config, settings, data, out, resume=args.resume, title="mixture")
    with clock.stage("twins"):
        twins = load_twins(trained, out / "twins", data, make=True)
    runs = {MOE: trained, **twins}
    verified = verify_run(
        trained, data.test, clock, samples=args.samples, time_limit=args.time_limit
    )
    with clock.stage("energy"):
        energy = energy_metrics(runs, data.test, TABLES, verified.traces["reference"])
    accuracy = accuracies(verified, data.test, args.samples)
    accuracy["twins"] = {name: test_accuracy(twin, data) for name, twin in twins.items()}
    graph = replace(verified.fixed_graph, notes={**verified.fixed_graph.notes, "data": data.name})
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
        graph.save(str(out / "digits-fixed.program"))
        names = ("reference", "lava_float", "lava_fixed")
        traces = {name: verified.traces[name] for name in names}
        page = write_report(out, make_facts(trained, data, verified.graph, traces, metrics))
    clock.seconds["total"] = round(time.perf_counter() - started, 1)
    write_metrics(out, metrics)
    show_verification(verified)
    _show_summary(metrics)
    say(
        f"metrics: {out / 'metrics.json'}   program: {out / 'digits-fixed.program'}   report: {page}"
    )
    return 0 if verified.same else 1


def _show_summary(metrics: dict) -> None:
    accuracy, experts = metrics["accuracy"], metrics["experts"]
    test, n = accuracy["test"], accuracy["samples"]
    rows = [
        [f"accuracy, torch, whole test set (n = {test['samples']})", percent(test["torch"])],
        [f"accuracy, torch (n = {n})", percent(accuracy["torch"])],
        [f"accuracy, Lava floating point (same n = {n})", percent(accuracy["lava_float"])],
        [f"accuracy, Lava fixed point (same n = {n})", percent(accuracy["lava_fixed"])],
    ]
    for arithmetic in ("float", "fixed"):
        part = metrics["verify"][arithmetic]
        rows.append(
            [
                f"spikes compared / differing, {arithmetic}",
                f"{part['compared']:,} / {part['differing']}",
            ]
        )
    for name, synops in metrics["synops_per_sample"].items():
        energy = metrics["energy_pj_per_sample"][name]
        shown = test["torch"] if name == MOE else accuracy["twins"].get(name)
        what = "multiply-accumulates" if name == "relu" else "synaptic operations"
        rows.append(
            [
                f"{_TITLES[name]}: accuracy, {what} and energy per image",
                f"{percent(shown)}, {number(synops)}, {nanojoules(energy)}",
            ]
        )
    rows.append(["share of experts silent (gates closed)", percent(experts["silent_share"])])
    latency = metrics["latency_steps"]
    rows.append(["latency in steps (depth + T)", f"{latency['depth']} + {latency['time_steps']}"])
    rows.append(["seconds of work", f"{metrics['seconds']['total']:.0f}"])
    show_table("one network, three machines (energy: estimates, horowitz45)", ["", "value"], rows)


_TITLES = {MOE: "mixture", "dense": "dense spiking twin", "relu": "ReLU twin"}
