"""`spikingmoe report`."""

from __future__ import annotations

import json
from pathlib import Path

from jsonargparse import Namespace
from torch import Tensor

from hardware.files import write_text
from hardware.ir.graph import SpikeGraph
from hardware.lowering import lower
from hardware.passes.pipeline import prepare
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
from spikingmoe.report.page import build_page, compare_page
from spikingmoe.train.checkpoint import Run

PAGE = "report.html"


def run(args: Namespace) -> int:
    """Gather what earlier commands measured of each run, and write one page of them all."""
    trained = {name: open_run(path) for name, path in zip(names(args.run), args.run, strict=True)}
    first_run = next(iter(trained.values()))
    graphs = {name: lower(one.model) for name, one in trained.items()}
    page = page_file(args.out, first_run.folder / "report" if len(trained) == 1 else Path("report"))
    if page.is_dir():
        raise ValueError(f"--out {page}: is a folder; name a file, or a folder without .html")
    output_folder(str(page.parent), page.parent)
    facts = {name: gather(one, graphs[name], args) for name, one in trained.items()}
    alone = next(iter(facts.values()))
    write_text(page, build_page(alone) if len(facts) == 1 else compare_page(facts))
    if page.name == PAGE:  # a page named by the user may lie in a run's folder, whose metrics stay
        several = {"command": "report", "runs": {name: one.metrics for name, one in facts.items()}}
        write_metrics(page.parent, alone.metrics if len(facts) == 1 else several)
    say(f"report: {page}")
    return 0


def names(paths: list[str]) -> list[str]:
    """Short names of runs: the last parts of their paths, as many as tell them apart.

    Raises:
        ValueError: a run is given twice.
    """
    parts = [Path(path).absolute().parts for path in paths]
    for index, one in enumerate(parts):
        if one in parts[:index]:
            raise ValueError(f"{paths[index]}: is given twice; name each run once")
    for length in range(1, max(map(len, parts)) + 1):
        short = ["/".join(one[-length:]) for one in parts]
        if len(set(short)) == len(short):
            return short
    return list(paths)


def page_file(given: str | None, default: Path) -> Path:
    """The page itself where `--out` names an HTML file, else report.html in that folder."""
    out = Path(given) if given else default
    return out if out.suffix.lower() in (".html", ".htm") else out / PAGE


def gather(trained: Run, graph: SpikeGraph, args: Namespace) -> ReportFacts:
    """What was measured of a run before, and what it sends for the samples that are shown."""
    data = open_data(trained, args)
    split = data.test.first(args.samples)
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
    if mapped := mappings(trained):
        metrics["mapping"] = mapped
    return make_facts(trained, data, graph, {"reference": trace}, metrics)


def mappings(trained: Run) -> dict[str, dict]:
    """What `map` wrote of the programs in the run's folder, by program, where it is of this very program.

    Raises:
        ValueError: such a file is damaged.
    """
    found: dict[str, dict] = {}
    for path in sorted(trained.folder.glob("*.map/metrics.json")):
        program = path.parent.with_suffix("")
        if not program.is_file():
            continue
        metrics = read_metrics(path, f"map {program}")
        graph = SpikeGraph.load(str(program))
        # A saved program holds lists where the configuration holds tuples.
        own = json.loads(json.dumps(trained.model_config.as_dict()))
        same_model = json.loads(json.dumps(graph.notes.get("config"))) == own
        if same_model and metrics.get("fingerprint") == prepare(graph).fingerprint:
            found[program.name] = metrics
        else:
            say(f"{path} is of another program or model and left out")
    return found


def earlier_metrics(trained: Run) -> dict:
    """What `train` or `demo`, `energy` and `verify` have written of this very checkpoint, the last winning.

    Raises:
        ValueError: such a file is damaged.
    """
    found: dict = {}
    for name in ("", "energy", "verify"):
        path = trained.folder / name / "metrics.json"
        if not path.is_file():
            continue
        metrics = read_metrics(path, name or "train")
        checkpoint, accuracy = metrics.get("checkpoint"), metrics.get("accuracy", {})
        tested = accuracy.get("test", {}) if isinstance(accuracy, dict) else None
        if not isinstance(checkpoint, dict) or not isinstance(tested, dict):
            raise ValueError(
                f"{path}: is damaged (checkpoint and accuracy must be objects); "
                f"run `spikingmoe {name or 'train'}` again"
            )
        if checkpoint.get("sha256") == file_digest(trained.path):
            found = {**found, **metrics, "accuracy": {**found.get("accuracy", {}), **accuracy}}
        else:
            say(f"{path} is of another checkpoint and left out")
    return found


def read_metrics(path: Path, command: str) -> dict:
    """A metrics.json that `spikingmoe COMMAND` wrote.

    Raises:
        ValueError: it is not JSON, or not an object.
    """
    try:
        metrics = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: is damaged ({error}); run `spikingmoe {command}` again"
        ) from None
    if not isinstance(metrics, dict):
        raise ValueError(
            f"{path}: holds {type(metrics).__name__}, not an object; run `spikingmoe {command}` again"
        )
    return metrics


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
    path = folder / PAGE
    write_text(path, build_page(facts))
    return path
