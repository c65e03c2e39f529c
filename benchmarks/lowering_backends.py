"""Is every backend the reference? One line per backend and arithmetic, spike for spike."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from hardware.ir import SpikeGraph
from hardware.lowering.integer import run_torch
from hardware.simulate import simulate, to_inputs
from hardware.trace import SpikeTrace
from hardware.verify import compare_traces, join_comparisons

TIME_LIMIT_S = 1800.0


@dataclass(frozen=True)
class Pair:
    """A backend that is compared with the reference on the first `images` images."""

    backend: str
    images: int


def compare_backends(
    graph: SpikeGraph,
    images: Tensor,
    labels: np.ndarray | None,
    pairs: list[Pair],
    *,
    batch: int,
) -> list[dict[str, object]]:
    """Rows of one graph, in its own arithmetic: spikes compared and differing, accuracy, seconds.

    Args:
        labels: of the images; None for an untrained network.
        batch: images that are held, and given to a backend, at a time.
    """
    rows = []
    for pair in pairs:
        taken: dict[str, float] = {"reference_s": 0.0, "seconds": 0.0}
        comparisons, logits = [], []
        for part in images[: pair.images].split(batch):
            with _added(taken, "reference_s"):
                ours = simulate(graph, part)
            with _added(taken, "seconds"):
                theirs = _run(graph, part, pair.backend)
            comparisons.append(compare_traces(graph, ours, theirs))
            logits.append(theirs.logits)
        joined, scores = join_comparisons(graph, comparisons), np.concatenate(logits)
        rows.append(
            {
                "backend": pair.backend,
                "arithmetic": graph.arithmetic,
                "images": len(scores),
                "compared": joined.compared,
                "differing": joined.differing,
                "same": joined.same,
                "accuracy": None if labels is None else share_right(scores, labels[: len(scores)]),
                **{name: round(seconds, 2) for name, seconds in taken.items()},
            }
        )
    return rows


def _run(graph: SpikeGraph, images: Tensor, backend: str) -> SpikeTrace:
    if backend == "torch-integers":
        return run_torch(graph, to_inputs(graph, images))
    return simulate(graph, images, backend=backend, time_limit=TIME_LIMIT_S)


def share_right(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of images that are classified rightly."""
    return float((logits.argmax(axis=1) == labels).mean())


@contextmanager
def _added(taken: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    taken[name] += time.perf_counter() - started
