"""The steps that commands share: twins, verification on Lava, energy with the twins, metrics."""

from __future__ import annotations

import hashlib
import os
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from hardware.energy import COST_TABLES, EnergyReport, ann_energy, estimate
from hardware.errors import FileError
from hardware.files import write_json
from hardware.ir.graph import SpikeGraph
from hardware.lowering import lower, record_torch
from hardware.lowering.ann import count_ann_layers
from hardware.passes.quantise import quantise
from hardware.simulate import simulate
from hardware.trace import SpikeTrace
from hardware.verify import Comparison, RoundingReport, compare_traces, rounding_divergence
from spikingmoe.cli.console import console, progress, say
from spikingmoe.config import ModelConfig, TrainConfig, dense_twin, relu_twin
from spikingmoe.data.image_data import ImageData, Split
from spikingmoe.train.checkpoint import Run, load_run, newest_valid, package_versions
from spikingmoe.train.fit import evaluate, train

TWINS = {"dense": dense_twin, "relu": relu_twin}
MOE = "moe"


def model_name(run: Run) -> str:
    """What a run is called beside its twins: moe, dense or relu."""
    if run.model_config.neuron == "relu":
        return "relu"
    return "dense" if run.model_config.routing == "dense" else MOE


def output_folder(given: str | None, default: Path) -> Path:
    """The folder for a command's results, made before any work is done."""
    folder = Path(given) if given else default
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(
            f"{folder}: cannot hold results ({error.strerror}); use another --out"
        ) from None
    return folder


@dataclass
class Clock:
    """Seconds per stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage."""
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 3)


def open_run(path: str) -> Run:
    """Load a run and give torch the CPU threads of its recipe."""
    run = load_run(path)
    torch.set_num_threads(run.train_config.threads)
    return run


def train_run(
    config: ModelConfig,
    settings: TrainConfig,
    data: ImageData,
    out: Path,
    *,
    resume: bool,
    title: str,
) -> Run:
    """Train with a bar on a terminal and a line every few epochs elsewhere."""
    torch.set_num_threads(settings.threads)
    every = max(1, settings.epochs // 8)
    done = newest_valid(out) if resume else None
    if done is not None and load_run(done).epoch >= settings.epochs:
        say(f"{title}: trained before, {settings.epochs} epochs")

    def line(record: dict[str, float], epochs: int) -> None:
        epoch = int(record["epoch"]) + 1
        if epoch % every == 0 or epoch == epochs:
            say(
                f"{title}: epoch {epoch}/{epochs}, loss {record['loss']:.3f}, "
                f"validation {100 * record['validation_accuracy']:.1f} %"
            )

    return train(
        config, settings, data, out, resume=resume, show_bar=console.is_terminal, report=line
    )


def load_twins(run: Run, folder: Path, data: ImageData, *, make: bool) -> dict[str, Run]:
    """The dense and the ReLU twin of a mixture, trained by the run's own recipe if `make`."""
    twins: dict[str, Run] = {}
    if run.model_config.routing == "dense":
        return twins
    for name, twin_of in TWINS.items():
        out = folder / name
        if make:
            twins[name] = train_run(
                twin_of(run.model_config),
                run.train_config,
                data,
                out,
                resume=True,
                title=f"{name} twin",
            )
        elif newest_valid(out) is not None:
            twins[name] = load_run(out)
    return twins


@dataclass(frozen=True)
class Verified:
    """The three-way comparison and the traces behind it."""

    graph: SpikeGraph
    fixed_graph: SpikeGraph
    comparisons: list[Comparison]
    rounding: RoundingReport
    traces: dict[str, SpikeTrace]

    @property
    def same(self) -> bool:
        """Whether nothing differs anywhere."""
        return all(c.same for c in self.comparisons)

    def metrics(self) -> dict[str, object]:
        """The `verify` part of metrics.json: `float` and `fixed` are the reference against Lava."""
        parts = dict(zip(("torch", "float", "fixed"), self.comparisons, strict=True))
        summary: dict[str, object] = {
            name: {
                "pair": f"{c.left} / {c.right}",
                "compared": c.compared,
                "differing": c.differing,
                "predictions_differ": c.predictions_differ,
                "samples": c.samples,
                "same": c.same,
            }
            for name, c in parts.items()
        }
        return {
            **summary,
            "same": self.same,
            "pairs": [c.as_dict() for c in self.comparisons],
            "float32": {
                **self.rounding.as_dict(),
                "within_contract": within_contract(self.rounding),
            },
        }


def within_contract(rounding: RoundingReport) -> bool:
    """At most 1 % of the images diverge in float32, each first within 1e-5 of the threshold."""
    return rounding.share <= 0.01 and (rounding.largest_margin or 0.0) <= 1e-5


def verify_run(
    run: Run, split: Split, clock: Clock, *, samples: int, time_limit: float
) -> Verified:
    """Torch (float64), the reference and Lava on the same images, in both arithmetics.

    Torch and the reference are compared on all images of `split`, Lava on the first `samples`.
    """
    some = split.first(samples)
    with clock.stage("lower"):
        graph = lower(run.model)
        fixed_graph = quantise(graph)
    with clock.stage("reference"), progress("torch and reference on all test images"):
        torch64 = record_torch(run.model, split.images)
        torch32 = record_torch(run.model, split.images, dtype=torch.float32)
        reference = simulate(graph, split.images)
        reference_fixed = simulate(fixed_graph, split.images)
    traces = {"torch": torch64, "reference": reference, "reference_fixed": reference_fixed}
    for name, program in (("lava_float", graph), ("lava_fixed", fixed_graph)):
        title = f"Lava, {program.arithmetic} point, {samples} images"
        with clock.stage(name), progress(title) as update:
            traces[name] = simulate(
                program, some.images, backend="lava", progress=update, time_limit=time_limit
            )
    comparisons = [
        compare_traces(graph, torch64, reference),
        compare_traces(graph, first(reference, samples), traces["lava_float"]),
        compare_traces(fixed_graph, first(reference_fixed, samples), traces["lava_fixed"]),
    ]
    rounding = rounding_divergence(graph, reference, torch32)
    return Verified(graph, fixed_graph, comparisons, rounding, traces)


def first(trace: SpikeTrace, samples: int) -> SpikeTrace:
    """The first `samples` samples of a trace."""
    return SpikeTrace(
        spikes={name: values[:samples] for name, values in trace.spikes.items()},
        logits=trace.logits[:samples],
        meta={**trace.meta, "samples": samples},
    )


def accuracy(trace: SpikeTrace, labels: np.ndarray) -> float:
    """Share of the trace's samples that it classifies rightly."""
    return float((trace.predictions == labels[: trace.samples]).mean())


def accuracies(verified: Verified, split: Split, samples: int) -> dict[str, object]:
    """The `accuracy` part of metrics.json: all on the same `samples` images, and on the test set."""
    labels = split.labels.numpy()
    traces = verified.traces
    return {
        "torch": accuracy(first(traces["torch"], samples), labels),
        "lava_float": accuracy(traces["lava_float"], labels),
        "lava_fixed": accuracy(traces["lava_fixed"], labels),
        "samples": samples,
        "test": {
            "torch": accuracy(traces["torch"], labels),
            "reference_fixed": accuracy(traces["reference_fixed"], labels),
            "samples": len(split),
        },
    }


def energy_of(
    run: Run, split: Split, costs: str, trace: SpikeTrace | None = None
) -> EnergyReport | None:
    """Energy of a run on `split`; None where the table has no price for a non-spiking network."""
    if run.model_config.neuron == "relu":
        if not COST_TABLES[costs].prices_ann:
            return None
        layers = count_ann_layers(run.model, split.images)
        return ann_energy(layers, costs, samples=len(split))
    graph = lower(run.model)
    return estimate(graph, trace if trace is not None else simulate(graph, split.images), costs)


def energy_metrics(
    runs: dict[str, Run], split: Split, tables: list[str], own_trace: SpikeTrace | None
) -> dict[str, object]:
    """The energy part of metrics.json: totals under the first table, whole reports under each.

    Args:
        runs: the run itself first, then its twins.
        own_trace: of the run itself on `split`, by the reference in floating point, if there is one.
    """
    own = next(iter(runs))
    reports: dict[str, dict[str, EnergyReport]] = {}
    for table in tables:
        found = {
            name: energy_of(run, split, table, own_trace if name == own else None)
            for name, run in runs.items()
        }
        reports[table] = {name: report for name, report in found.items() if report is not None}
    headline = reports[tables[0]]
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
        gates_open, gates = gates_open + int(counts.sum()), gates + chosen.size
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


def test_accuracy(run: Run, data: ImageData) -> float:
    """Accuracy on the whole test set."""
    return evaluate(run.model, data.test)[0]
