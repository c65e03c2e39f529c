"""The literal meaning of a graph in time: one hardware step after another, samples back to back.

Slower than `hardware.ir.reference` and free of its assumption: delays need not be balanced, so
graphs legalised for a backend (shift registers instead of delays) run here too. A message sent at
hardware step h arrives at h + delay; v is cleared at steps congruent to the depth modulo T.
"""

from __future__ import annotations

import time

import numpy as np

from hardware.ir.arithmetic import check_range, lif_step, shift
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import LIF, Input, Population, Readout
from hardware.ir.reference import check_inputs, input_values, run_meta, to_logits
from hardware.trace import SpikeTrace


def stream_steps(graph: SpikeGraph, samples: int) -> int:
    """Hardware steps until the deepest population has seen the last step of the last sample."""
    return samples * graph.time_steps + max(graph.depth.values())


class InputRows:
    """What an `Input` sends, a few hardware steps at a time: silent outside the samples.

    Repeating signals go on as long as there are samples, a constant for ever.

    Args:
        inputs: (S, T or 1, *shape) of the samples; may be a memory-mapped file.
    """

    def __init__(self, graph: SpikeGraph, population: Input, inputs: np.ndarray) -> None:
        self.graph, self.population, self.inputs = graph, population, inputs
        self.depth = graph.depth[population.name]
        self._kept: tuple[int, int, np.ndarray] | None = None

    def rows(self, first: int, count: int) -> np.ndarray:
        """(count, *shape): the messages of hardware steps `first` to `first + count`."""
        if self.population.kind == "constant":
            return np.ones((count, *self.population.shape), dtype=bool)
        length = self.graph.time_steps
        begin = max(first - self.depth, 0)
        end = min(first - self.depth + count, len(self.inputs) * length)
        if end <= begin:
            return np.zeros((count, *self.population.shape), dtype=self._values(0, 1).dtype)
        values = self._values(begin // length, (end - 1) // length + 1)
        offset = begin // length * length
        sent = values[begin - offset : end - offset]
        if len(sent) == count:
            return sent
        rows = np.zeros((count, *sent.shape[1:]), dtype=sent.dtype)
        rows[begin + self.depth - first : end + self.depth - first] = sent
        return rows

    def _values(self, sample: int, end: int) -> np.ndarray:
        """(steps, *shape) of some samples; the last ones are kept, since calls go on where they stopped."""
        if self._kept is None or self._kept[:2] != (sample, end):
            values = input_values(self.graph, self.population, self.inputs[sample:end])
            self._kept = (sample, end, values.reshape(-1, *self.population.shape))
        return self._kept[2]


def input_stream(graph: SpikeGraph, population: Input, inputs: np.ndarray) -> np.ndarray:
    """(hardware steps, *shape): what an Input sends in a whole run."""
    return InputRows(graph, population, inputs).rows(0, stream_steps(graph, len(inputs)))


def window_view(graph: SpikeGraph, name: str, stream: np.ndarray, samples: int) -> np.ndarray:
    """(hardware steps, *shape) of one population -> (S, T, *shape)."""
    depth, steps = graph.depth[name], graph.time_steps
    shape = graph.populations[name].shape
    return stream[depth : depth + samples * steps].reshape(samples, steps, *shape)


def run_stream(graph: SpikeGraph, inputs: np.ndarray) -> SpikeTrace:
    """Simulate hardware step by hardware step; arguments and result as `run_reference`."""
    inputs = check_inputs(graph, inputs)
    started = time.perf_counter()
    samples = len(inputs)
    sent = stream_messages(graph, inputs)
    spikes = {name: window_view(graph, name, sent[name], samples) for name in graph.populations}
    return SpikeTrace(
        spikes=spikes,
        logits=to_logits(graph, spikes[graph.readout.name]),
        meta=run_meta(graph, "stream", samples, time.perf_counter() - started),
    )


def stream_messages(graph: SpikeGraph, inputs: np.ndarray) -> dict[str, np.ndarray]:
    """What each population sends at every hardware step: (hardware steps, *shape) by name.

    Args:
        inputs: (S, T or 1, *input shape), real units.

    Raises:
        BackendError: inputs of the wrong shape, or a sum that leaves the target's range.
    """
    inputs = check_inputs(graph, inputs)
    steps = stream_steps(graph, len(inputs))
    fixed = graph.arithmetic == "fixed"
    dtype = np.int64 if fixed else np.float64
    weights = [(s, graph.matrix(s).astype(dtype)) for s in graph.synapses]
    sent = {n: _empty_stream(graph, p, steps, dtype, inputs) for n, p in graph.populations.items()}
    v = {n: np.zeros(p.shape, dtype) for n, p in graph.populations.items()}
    for step in range(steps):
        current = {n: np.zeros(int(np.prod(p.shape)), dtype) for n, p in graph.populations.items()}
        for synapse, weight in weights:
            if step >= synapse.delay:
                message = sent[synapse.source][step - synapse.delay].ravel().astype(dtype)
                arriving = weight @ message
                current[synapse.target] += shift(arriving, synapse.exponent) if fixed else arriving
        for name, population in graph.populations.items():
            now = current[name].reshape(population.shape)
            if fixed:
                check_range(population, now)
            if isinstance(population, LIF):
                if (step - graph.depth[name]) % graph.time_steps == 0:
                    v[name] = np.zeros_like(v[name])
                _, sent[name][step], v[name] = lif_step(population, v[name], now, fixed=fixed)
            elif not isinstance(population, Input):
                sent[name][step] = now + (population.bias if isinstance(population, Readout) else 0)
    return sent


def _empty_stream(
    graph: SpikeGraph, population: Population, steps: int, dtype: type, inputs: np.ndarray
) -> np.ndarray:
    if isinstance(population, Input):
        return input_stream(graph, population, inputs)
    return np.zeros((steps, *population.shape), bool if isinstance(population, LIF) else dtype)
