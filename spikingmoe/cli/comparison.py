"""The three-way comparison: torch, the reference and Lava on the same images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from hardware.ir.graph import SpikeGraph
from hardware.lowering import lower, record_torch
from hardware.passes.quantise import quantise
from hardware.simulate import simulate
from hardware.trace import SpikeTrace
from hardware.verify import Comparison, RoundingReport, compare_traces, rounding_divergence
from spikingmoe.cli.chain import Clock
from spikingmoe.cli.console import progress
from spikingmoe.data.image_data import Split
from spikingmoe.train.checkpoint import Run

PAIRS = ("torch", "float", "fixed", "stock_float", "stock_fixed")
STOCK_SAMPLES = 4  # a hardware step of the stock network takes tens of times longer


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
        """The `verify` part of metrics.json: `float` and `fixed` are the reference against fused Lava
        processes, `stock_float` and `stock_fixed` against Lava's stock processes.
        """
        parts = dict(zip(PAIRS, self.comparisons, strict=True))
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
            "float32": self.rounding.as_dict(),
        }


def verify_run(
    run: Run, split: Split, clock: Clock, *, samples: int, time_limit: float
) -> Verified:
    """Torch (float64), the reference and Lava on the same images, in both arithmetics.

    Torch and the reference are compared on all images of `split`, Lava's fused processes on the first
    `samples`, its stock network on the first few of those.
    """
    few = min(samples, STOCK_SAMPLES)
    with clock.stage("lower"):
        graph = lower(run.model)
        fixed_graph = quantise(graph)
    with clock.stage("reference"), progress(f"torch and reference, {len(split)} images"):
        torch64 = record_torch(run.model, split.images)
        torch32 = record_torch(run.model, split.images, dtype=torch.float32)
        reference = simulate(graph, split.images)
        reference_fixed = simulate(fixed_graph, split.images)
    traces = {"torch": torch64, "reference": reference, "reference_fixed": reference_fixed}
    for backend, prefix, count in (("lava", "lava", samples), ("lava-stock", "stock", few)):
        for program in (graph, fixed_graph):
            name = f"{prefix}_{program.arithmetic}"
            title = f"{backend}, {program.arithmetic} point, {count} images"
            with clock.stage(name), progress(title) as update:
                traces[name] = simulate(
                    program,
                    split.first(count).images,
                    backend=backend,
                    progress=update,
                    time_limit=time_limit,
                )
    comparisons = [
        compare_traces(graph, torch64, reference),
        compare_traces(graph, first(reference, samples), traces["lava_float"]),
        compare_traces(fixed_graph, first(reference_fixed, samples), traces["lava_fixed"]),
        compare_traces(graph, first(reference, few), traces["stock_float"]),
        compare_traces(fixed_graph, first(reference_fixed, few), traces["stock_fixed"]),
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
