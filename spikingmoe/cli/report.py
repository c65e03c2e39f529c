"""`spikingmoe report`."""

from __future__ import annotations

import json
from pathlib import Path

from jsonargparse import Namespace
from torch import Tensor

from hardware.files import write_text
from hardware.ir.graph import SpikeGraph
from hardware.lowering import lower
from hardware.simulate import simulate
from hardware.trace import SpikeTrace
from spikingmoe.cli.chain import open_data, open_run, output_folder
from spikingmoe.cli.comparison import first
from spikingmoe.cli.console import say
from spikingmoe.cli.metrics import (
    base_metrics,
    expert_metrics,
    file_digest,
    latency_metrics,
    test_accuracy,
    write_metrics,
)
from spikingmoe.data.image_data import ImageData
from spikingmoe.report.facts import ReportFacts
from spikingmoe.report.page import build_page
from spikingmoe.train.checkpoint import Run


def run(args: Namespace) -> int:
    """Gather what earlier commands measured of a run and write its page."""
    trained = open_run(args.run)
    data = open_data(trained, args)
    split = data.test.first(args.samples)
    graph = lower(trained.model)
    out = output_folder(args.out, trained.folder / "report")
    trace = simulate(graph, split.images)
    metrics = {
        **earlier_metrics(trained),
        **base_metrics("report", trained),
        "latency_steps": latency_metrics(graph),
    }
    accuracy = metrics.setdefault("accuracy", {})
    own = {"torch": test_accuracy(trained, data), "samples": len(data.test)}
    before = accuracy.get("test", {})  # of fewer images than all, if `verify` was told so
    same = before.get("samples") == own["samples"]
    accuracy["test"] = {**before, **own} if same else own
    if graph.gate_limits:
        metrics["experts"] = expert_metrics(trace, graph)
    page = write_report(out, make_facts(trained, data, graph, {"reference": trace}, metrics))
    write_metrics(out, metrics)
    say(f"report: {page}")
    return 0


def earlier_metrics(trained: Run) -> dict:
    """What `train` or `demo`, `energy` and `verify` have written of this very checkpoint, the last winning."""
    found: dict = {}
    for name in ("", "energy", "verify"):
        path = trained.folder / name / "metrics.json"
        if not path.is_file():
            continue
        try:
            metrics = json.loads(path.read_text())
            digest = metrics["checkpoint"]["sha256"]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"{path}: is damaged ({error}); run `spikingmoe {name or 'train'}` again"
            ) from None
        if digest == file_digest(trained.path):
            accuracy = {**found.get("accuracy", {}), **metrics.get("accuracy", {})}
            found = {**found, **metrics, "accuracy": accuracy}
        else:
            say(f"{path} is of another checkpoint and left out")
    return found


def make_facts(
    trained: Run,
    data: ImageData,
    graph: SpikeGraph,
    traces: dict[str, SpikeTrace],
    metrics: dict,
) -> ReportFacts:
    """What the page shows, for the samples that all `traces` hold; `reference` gives the spikes."""
    samples = min(t.samples for t in traces.values())
    split = data.test.first(samples)
    pixels = pictures(data.normalisation.pixels(split.images)).movedim(1, -1).numpy()
    return ReportFacts(
        metrics=metrics,
        classes=data.classes,
        images=pixels,
        labels=split.labels.numpy(),
        predictions={name: t.predictions[:samples] for name, t in traces.items()},
        spikes=first(traces["reference"], samples).spikes,
        depth=dict(graph.depth),
        history=trained.history,
    )


def pictures(pixels: Tensor) -> Tensor:
    """(n, C, height, width) in 0..1; events are summed over their frames, the most frequent pixel is 1."""
    if pixels.ndim == 4:
        return pixels
    summed = pixels.sum(dim=1)
    return summed / summed.amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-6)


def write_report(folder: Path, facts: ReportFacts) -> Path:
    """Write report.html into a folder."""
    path = folder / "report.html"
    write_text(path, build_page(facts))
    return path
