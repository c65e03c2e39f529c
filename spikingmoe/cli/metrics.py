"""What commands write into metrics.json."""

from __future__ import annotations

import hashlib
import math
import os
import platform
from collections.abc import Sequence
from pathlib import Path

from hardware.energy import (
    CostTable,
    EnergyReport,
    OperationCounter,
    OperationCounts,
    ann_energy,
    get_table,
    price,
    quantised_energy,
)
from hardware.files import write_json
from hardware.ir.graph import SpikeGraph
from hardware.loihi.mapping import map_graph
from hardware.lowering import lower
from hardware.lowering.ann import count_ann_layers, count_quantised_layers
from hardware.passes.pipeline import prepare
from hardware.simulate import simulate, simulate_batches
from hardware.trace import SpikeTrace
from spikingmoe.data.image_data import ImageData, Split
from spikingmoe.train.checkpoint import Run, package_versions
from spikingmoe.train.devices import choose_device
from spikingmoe.train.fit import evaluate

PLACED_BY = 4  # images whose messages decide where cores lie, as for `spikingmoe map`


def energy_of(
    run: Run, split: Split, tables: Sequence[str | CostTable], counts: OperationCounts | None
) -> dict[str, EnergyReport]:
    """Energy of a run on `split` by table; a table without a price for the network is left out.

    Args:
        counts: of the run on `split` without a layout, if they were taken before.
    """
    known = [get_table(table) if isinstance(table, str) else table for table in tables]
    if not run.model_config.is_spiking:
        images = split.in_steps(run.model_config.time_steps).images
        if run.model_config.activation_bits:
            quantised = count_quantised_layers(run.model, images)
            priced = [table for table in known if table.quantised is not None]
            return {t.name: quantised_energy(quantised, t, samples=len(split)) for t in priced}
        layers = count_ann_layers(run.model, images)
        priced = [table for table in known if table.prices_ann]
        return {table.name: ann_energy(layers, table, samples=len(split)) for table in priced}
    counted: dict[str | None, OperationCounts] = {} if counts is None else {None: counts}
    for chip in dict.fromkeys(table.chip for table in known):
        if chip not in counted:
            counted[chip] = count_images(lower(run.model), split, chip)
    return {table.name: price(counted[table.chip], table) for table in known}


def count_images(graph: SpikeGraph, split: Split, chip: str | None = None) -> OperationCounts:
    """Operations of the reference on all images, in the memory of one batch.

    Args:
        chip: lay the graph out on it, placed by the traffic of the first images, and count
            messages between its cores too.
    """
    layout = None
    if chip is not None:
        graph = prepare(graph)
        trace = simulate(graph, split.images[:PLACED_BY])
        layout = map_graph(graph, chip, trace=trace).layout
    counter = OperationCounter(graph, layout)
    for trace in simulate_batches(graph, split.images):
        counter.add(trace)
    return counter.counts


def energy_metrics(
    runs: dict[str, Run],
    split: Split,
    tables: Sequence[str | CostTable],
    own_counts: OperationCounts | None,
) -> dict[str, object]:
    """The energy part of metrics.json: totals under the first table, whole reports under each.

    Args:
        runs: the run itself first, then its twins.
        own_counts: of the run itself on `split`, by the reference in floating point, if there are.
    """
    own = next(iter(runs))
    found = {
        name: energy_of(run, split, tables, own_counts if name == own else None)
        for name, run in runs.items()
    }
    names = [table if isinstance(table, str) else table.name for table in tables]
    reports = {t: {name: r[t] for name, r in found.items() if t in r} for t in names}
    headline = reports[names[0]]
    return {
        "synops_per_sample": {name: r.synops_per_sample for name, r in headline.items()},
        "energy_pj_per_sample": {
            name: r.energy_pj_per_sample.value for name, r in headline.items()
        },
        "energy": {t: {n: r.as_dict() for n, r in rs.items()} for t, rs in reports.items()},
        "energy_counted_on": f"reference, floating point, {len(split)} test images",
    }


def expert_metrics(trace: SpikeTrace, graph: SpikeGraph) -> dict[str, object]:
    """How the experts were used: load per router, and how much of the mixture was silent."""
    load, gates_open, gates, quiet, windows = {}, 0, 0, 0, 0
    for router in graph.gate_limits:
        held = f"{router}.latch" in trace.spikes
        chosen = trace.spikes[f"{router}.latch" if held else f"{router}.gate"]
        counts = chosen.reshape(-1, chosen.shape[-1]).sum(axis=0)
        load[router] = (counts / max(1, counts.sum())).tolist()
        tokens = math.prod(trace.spikes[f"{router}.x"].shape[2:4])
        each = tokens // math.prod(chosen.shape[2:4])  # tokens per gate: all, for image-wise ones
        gates_open, gates = gates_open + each * int(counts.sum()), gates + each * chosen.size
        for name, spikes in trace.spikes.items():
            if name.startswith(f"{router}.experts.") and name.endswith(".hidden"):
                quiet += int((~spikes.reshape(*spikes.shape[:2], -1).any(axis=-1)).sum())
                windows += spikes.shape[0] * spikes.shape[1]
    return {
        "load": load,
        "silent_share": 1 - gates_open / gates if gates else None,
        "silent_share_definition": "share of (image, step, token, expert) whose gate is closed",
        "whole_expert_silent_share": quiet / windows if windows else None,
        "whole_expert_silent_share_definition": "share of (image, step, expert) without any spike",
    }


def latency_metrics(graph: SpikeGraph) -> dict[str, int]:
    """Hardware steps: the first answer after depth + T, then one sample every T."""
    depth, steps = graph.depth[graph.readout.name], graph.time_steps
    return {"depth": depth, "time_steps": steps, "first_sample": depth + steps, "every": steps}


def base_metrics(command: str, run: Run) -> dict[str, object]:
    """What every metrics.json says of its origin."""
    return {
        "command": command,
        "config": {"model": run.model_config.as_dict(), "train": run.train_config.as_dict()},
        "seed": run.train_config.seed,
        "epoch": run.epoch,
        "checkpoint": {"file": run.path.name, "sha256": file_digest(run.path)},
        "versions": package_versions(),
        "machine": {
            "system": platform.system(),
            "processor": platform.machine(),
            "cores": len(os.sched_getaffinity(0)),
        },
    }


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_metrics(folder: Path, metrics: dict[str, object]) -> Path:
    """Write metrics.json into a folder."""
    path = folder / "metrics.json"
    write_json(path, metrics)
    return path


def test_accuracy(run: Run, data: ImageData, device: str = "cpu") -> float:  # noqa: PT028
    """Accuracy on the whole test set, computed on `device`; the model stays on the CPU."""
    accuracy = evaluate(
        run.model, data.test.in_steps(run.model_config.time_steps), choose_device(device)
    )[0]
    run.model.cpu()
    return accuracy
