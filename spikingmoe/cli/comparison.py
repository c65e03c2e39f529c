"""The three-way comparison: torch, the reference and Lava on the same images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hardware.energy import OperationCounter, OperationCounts
from hardware.ir.graph import SpikeGraph
from hardware.lowering import compare_with_torch, lower
from hardware.passes.quantise import quantise
from hardware.simulate import simulate, simulate_batches
from hardware.trace import SpikeTrace
from hardware.verify import Comparison, RoundingReport, compare_traces
from spikingmoe.cli.chain import Clock
from spikingmoe.cli.console import progress
from spikingmoe.data.image_data import Split
from spikingmoe.train.checkpoint import Run

PAIRS = ("torch", "float", "fixed", "stock_float", "stock_fixed")
STOCK_SAMPLES = 4  # a hardware step of the stock network takes tens of times longer


@dataclass(frozen=True)
class Verified:
    """The three-way comparison.

    Attributes:
        counts: operations of the reference in floating point, over all images.
        logits: (S, classes) over all images, of `torch` (float64) and `reference_fixed`.
        traces: of the first images alone: `reference`, `lava_float`, `lava_fixed`.
    """

    graph: SpikeGraph
    fixed_graph: SpikeGraph
    comparisons: list[Comparison]
    rounding: RoundingReport
    counts: OperationCounts
    logits: dict[str, np.ndarray]
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
    run: Run,
    split: Split,
    clock: Clock,
    *,
    samples: int,
    time_limit: float,
    keep: int | None = None,
) -> Verified:
    """Torch (float64), the reference and Lava on the same images, in both arithmetics.

    Torch and the reference are compared on all images of `split`, batch by batch, Lava's fused
    processes on the first `samples`, its stock network on the first few of those.

    Args:
        keep: images of which the reference's trace is kept, at least `samples` (the default).
    """
    few = min(samples, STOCK_SAMPLES)
    with clock.stage("lower"):
        graph = lower(run.model)
        fixed_graph = quantise(graph)
    counter, head = OperationCounter(graph), Head(samples if keep is None else keep)
    fixed_head, fixed_logits = Head(samples), []

    def watch(trace: SpikeTrace) -> None:
        counter.add(trace)
        head.add(trace)

    title = f"torch and reference, {len(split)} images"
    with clock.stage("reference"), progress(title) as update:
        agreement = compare_with_torch(run.model, graph, split.images, watch=watch, progress=update)
    title = f"reference, fixed point, {len(split)} images"
    with clock.stage("reference_fixed"), progress(title) as update:
        for trace in simulate_batches(fixed_graph, split.images):
            fixed_head.add(trace)
            fixed_logits.append(trace.logits)
            update(sum(map(len, fixed_logits)), len(split))
    traces = {"reference": head.trace}
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
    reference, reference_fixed = head.trace, fixed_head.trace
    comparisons = [
        agreement.comparison,
        compare_traces(graph, first(reference, samples), traces["lava_float"]),
        compare_traces(fixed_graph, first(reference_fixed, samples), traces["lava_fixed"]),
        compare_traces(graph, first(reference, few), traces["stock_float"]),
        compare_traces(fixed_graph, first(reference_fixed, few), traces["stock_fixed"]),
    ]
    logits = {"torch": agreement.torch_logits, "reference_fixed": np.concatenate(fixed_logits)}
    return Verified(
        graph, fixed_graph, comparisons, agreement.rounding, counter.counts, logits, traces
    )


class Head:
    """Keeps the first samples of traces that come batch by batch."""

    def __init__(self, samples: int) -> None:
        self.missing = samples
        self.parts: list[SpikeTrace] = []

    def add(self, trace: SpikeTrace) -> None:
        """Keep of the next batch what is still missing."""
        if self.missing > 0:
            self.parts.append(first(trace, min(self.missing, trace.samples)))
            self.missing -= self.parts[-1].samples

    @property
    def trace(self) -> SpikeTrace:
        """What was kept, as one trace."""
        logits = np.concatenate([p.logits for p in self.parts])
        return SpikeTrace(
            spikes={
                n: np.concatenate([p.spikes[n] for p in self.parts]) for n in self.parts[0].spikes
            },
            logits=logits,
            meta={**self.parts[0].meta, "samples": len(logits)},
        )


def first(trace: SpikeTrace, samples: int) -> SpikeTrace:
    """The first `samples` samples of a trace."""
    return SpikeTrace(
        spikes={name: values[:samples] for name, values in trace.spikes.items()},
        logits=trace.logits[:samples],
        meta={**trace.meta, "samples": samples},
    )


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of the samples that logits (S, classes) classify rightly; labels beyond S are left out."""
    return float((logits.argmax(axis=1) == labels[: len(logits)]).mean())


def accuracies(verified: Verified, split: Split, samples: int) -> dict[str, object]:
    """The `accuracy` part of metrics.json: all on the same `samples` images, and on the test set."""
    labels = split.labels.numpy()
    traces, logits = verified.traces, verified.logits
    return {
        "torch": accuracy(logits["torch"][:samples], labels),
        "lava_float": accuracy(traces["lava_float"].logits, labels),
        "lava_fixed": accuracy(traces["lava_fixed"].logits, labels),
        "samples": samples,
        "test": {
            "torch": accuracy(logits["torch"], labels),
            "reference_fixed": accuracy(logits["reference_fixed"], labels),
            "samples": len(split),
        },
    }
