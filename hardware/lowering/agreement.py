"""Is the lowered graph the torch model? Image after image, in the memory of one batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hardware.ir.graph import SpikeGraph
from hardware.ir.reference import Progress
from hardware.lowering.builder import Rules
from hardware.lowering.from_torch import Residual
from hardware.lowering.record import record_batches
from hardware.lowering.structure import Model
from hardware.simulate import simulate_batches
from hardware.trace import SpikeTrace
from hardware.verify import (
    Comparison,
    RoundingReport,
    compare_traces,
    join_comparisons,
    join_roundings,
    rounding_divergence,
)

BATCH = 64


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Torch in float64 against the reference in floating point; float32 beside it.

    Attributes:
        torch_logits: (S, classes) of the float64 model.
    """

    comparison: Comparison
    rounding: RoundingReport
    torch_logits: np.ndarray


def compare_with_torch(
    model: Model,
    graph: SpikeGraph,
    images: Tensor,
    *,
    residual: Residual = "relay",
    rules: Rules | None = None,
    batch: int = BATCH,
    watch: Callable[[SpikeTrace], None] | None = None,
    progress: Progress | None = None,
) -> Agreement:
    """Compare every spike of the model with those of the graph that it was lowered to.

    Args:
        graph: `lower(model, residual=residual, rules=rules)`.
        images: (S, C, height, width), normalised, or event frames (S, T, C, height, width).
        batch: samples that are held at a time.
        watch: called with the reference's trace of each batch, in order.
        progress: called with (samples done, samples).

    Raises:
        BackendError: the graph is not that of the model, or there are no images.
        LoweringError: images of another shape.
    """
    parts = images.split(batch)
    ours = simulate_batches(graph, images, size=batch)
    theirs = record_batches(model, parts, residual=residual, rules=rules)
    rounded = record_batches(model, parts, dtype=torch.float32, residual=residual, rules=rules)
    comparisons, roundings, logits = [], [], []
    for reference, float64, float32 in zip(ours, theirs, rounded, strict=True):
        comparisons.append(compare_traces(graph, float64, reference))
        roundings.append(rounding_divergence(graph, reference, float32))
        logits.append(float64.logits)
        if watch:
            watch(reference)
        if progress:
            progress(sum(map(len, logits)), len(images))
    return Agreement(
        comparison=join_comparisons(graph, comparisons),
        rounding=join_roundings(roundings),
        torch_logits=np.concatenate(logits),
    )
