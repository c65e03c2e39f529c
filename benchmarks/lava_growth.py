"""How the arithmetic of a fused step grows with the network and falls with the firing rate.

Processor time of `hardware.ir.stepper` on one core, without Lava: messages between processes and recording
are left out. Networks are the digits preset with one number changed; weights are untrained, norms are
settled on random smooth images.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from benchmarks.harness import Report, spread
from hardware.ir import LIF, Input, SpikeGraph
from hardware.ir.stepper import Stepper
from hardware.ir.stream import InputRows, stream_steps
from hardware.lowering import lower
from hardware.passes.pipeline import prepare
from hardware.simulate import to_inputs
from spikingmoe import create_model
from spikingmoe.model import SpikingTransformer

SAMPLES = 16
SETTLING = 30  # batches until the running statistics of a batch norm have left their initial values
AT_ONCE = 16
BLOCKS, SIZES, EXPERTS = (1, 2, 4, 8), (8, 16, 32), (2, 4, 8, 16)
THRESHOLDS = (0.5, 1.0, 2.0, 4.0, 1000.0)  # times the model's own


def settled(model: SpikingTransformer, images: Tensor) -> SpikingTransformer:
    """A copy in evaluation mode whose batch norms know the statistics of `images`."""
    model = copy.deepcopy(model).train()
    with torch.no_grad():
        for _ in range(SETTLING):
            model(images)
    return model.eval()


def add_growth(report: Report, *, repeats: int, seed: int) -> None:
    """One row per network and varied number."""
    for varied, value, graph, images in _cases(seed):
        times, rate = _step_times(graph, to_inputs(graph, images), repeats)
        report.add(
            measured="growth",
            varied=varied,
            value=value,
            step_cpu_ms=1e3 * spread(times)["median"],
            n=len(times),
            populations=len(graph.populations),
            neurons=sum(int(np.prod(p.shape)) for p in graph.populations.values()),
            firing_rate=rate,
        )


def _cases(seed: int) -> Iterator[tuple[str, float, SpikeGraph, Tensor]]:
    for blocks in BLOCKS:
        yield "blocks", blocks, *_network(seed, depth=blocks)
    for size in SIZES:
        yield "tokens", (size // 2) ** 2, *_network(seed, image_size=size)
    for experts in EXPERTS:
        yield "experts", experts, *_network(seed, num_experts=experts)
    graph, images = _network(seed)
    for factor in THRESHOLDS:
        yield "thresholds", factor, _with_thresholds(graph, factor), images


def _network(seed: int, **overrides: int) -> tuple[SpikeGraph, Tensor]:
    torch.manual_seed(seed)
    model = create_model("digits", num_classes=10, **overrides)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((64, *model.input_shape), generator=generator)
    images = torch.nn.functional.avg_pool2d(noise, 3, 1, 1) * 3
    return prepare(lower(settled(model, images)), "float"), images[:SAMPLES]


def _with_thresholds(graph: SpikeGraph, factor: float) -> SpikeGraph:
    """Thresholds of the neurons times `factor`; gates keep theirs."""
    populations = [
        replace(p, threshold=np.asarray(p.threshold * factor))
        if isinstance(p, LIF) and p.membrane_decay > 0
        else p
        for p in graph.populations.values()
    ]
    return graph.with_(populations=populations)


def _step_times(graph: SpikeGraph, inputs: np.ndarray, repeats: int) -> tuple[list[float], float]:
    """Seconds of processor time per hardware step, and the share of neurons that spike."""
    names = [n for n, p in graph.populations.items() if not isinstance(p, Input)]
    signals = {
        n: InputRows(graph, p, inputs) for n, p in graph.populations.items() if isinstance(p, Input)
    }
    stepper = Stepper(graph, names, at_most=AT_ONCE)
    steps = stream_steps(graph, len(inputs))
    neurons = [n for n in names if isinstance(graph.populations[n], LIF)]
    times, spikes, places = [], 0, 0
    for repeat in range(repeats + 1):
        started = time.process_time()
        for first in range(0, steps, AT_ONCE):
            count = min(AT_ONCE, steps - first)
            stepper.advance(count, {n: signals[n].rows(first, count) for n in stepper.sources})
            if repeat == 0:  # makes the operators, and is not timed
                spikes += sum(int(stepper.sent(n).sum()) for n in neurons)
                places += sum(stepper.sent(n).size for n in neurons)
        if repeat:
            times.append((time.process_time() - started) / steps)
    return times, spikes / places
