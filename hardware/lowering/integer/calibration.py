"""What a float graph sends on calibration images, for choosing scales and exponents."""

from __future__ import annotations

import numpy as np

from hardware.ir.graph import SpikeGraph
from hardware.ir.reference import BATCH, Progress, run_batches


def message_squares(
    graph: SpikeGraph, inputs: np.ndarray, *, progress: Progress | None = None
) -> dict[str, np.ndarray]:
    """Mean square of what each neuron sends, over samples and steps: (n,) by population.

    Args:
        graph: balanced, floating point.
        inputs: (S, T or 1, *input shape), real units; never test data.
    """
    sums = {name: np.zeros(int(np.prod(p.shape))) for name, p in graph.populations.items()}
    parts = (inputs[start : start + BATCH] for start in range(0, len(inputs), BATCH))
    done = 0
    for trace in run_batches(graph, parts):
        for name, sent in trace.spikes.items():
            flat = sent.reshape(trace.samples * graph.time_steps, -1)
            squares = flat.sum(0) if flat.dtype == bool else np.einsum("rn,rn->n", flat, flat)
            sums[name] += squares / (len(inputs) * graph.time_steps)
        done += trace.samples
        if progress:
            progress(done, len(inputs))
    return sums
