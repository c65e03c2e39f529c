"""The reference interpreter: what a balanced `SpikeGraph` means, vectorised over samples.

Populations are evaluated once each, in order. With balanced delays, step tau of a sample meets step
tau of its sources, so a forward synapse needs no delay here. A population with a loop onto itself
sees its own messages of earlier *hardware* steps; since samples stream back to back, those at the
start of a window are the last ones of the previous sample (nothing clears them on a chip). Before
the first sample loops are taken to be empty, as a latch is; a loop whose own bias fires it would
start from what it sent while the pipeline filled (`hardware.ir.stream` shows that too).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Container, Iterable, Iterator

import numpy as np

from hardware.errors import BackendError
from hardware.ir.arithmetic import lif_step, quantise_input
from hardware.ir.currents import Currents
from hardware.ir.graph import SpikeGraph
from hardware.ir.neurons import Neurons
from hardware.ir.nodes import LIF, Input, Population, Readout
from hardware.ir.synapses import AnySynapse
from hardware.trace import SpikeTrace

BATCH = 64
Progress = Callable[[int, int], None]


def run_reference(
    graph: SpikeGraph,
    inputs: np.ndarray,
    *,
    record: Iterable[str] | None = None,
    progress: Progress | None = None,
) -> SpikeTrace:
    """Run samples through a balanced graph.

    Args:
        graph: float or fixed; the arithmetic follows it.
        inputs: (S, T or 1, *input shape), real units; one step is repeated for the whole window.
        record: populations to keep; all by default.
        progress: called with (samples done, samples).

    Raises:
        BackendError: for inputs of the wrong shape or delays that are not balanced.
    """
    inputs = check_inputs(graph, inputs)
    started = time.perf_counter()
    recorded = set(graph.populations if record is None else record)
    kept: dict[str, list[np.ndarray]] = {n: [] for n in graph.populations if n in recorded}
    logits: list[np.ndarray] = []
    parts = (inputs[start : start + BATCH] for start in range(0, len(inputs), BATCH))
    for trace in run_batches(graph, parts, record=recorded):
        for name, chunks in kept.items():
            chunks.append(trace.spikes[name])
        logits.append(trace.logits)
        if progress:
            progress(sum(map(len, logits)), len(inputs))
    return SpikeTrace(
        spikes={name: np.concatenate(chunks) for name, chunks in kept.items()},
        logits=np.concatenate(logits),
        meta=run_meta(graph, "reference", len(inputs), time.perf_counter() - started),
    )


def run_batches(
    graph: SpikeGraph, batches: Iterable[np.ndarray], *, record: Iterable[str] | None = None
) -> Iterator[SpikeTrace]:
    """The trace of each batch of one stream of samples: as `run_reference` of all, in the memory of one.

    Args:
        batches: each (S, T or 1, *input shape), real units; what loops have in flight goes on from
            one to the next.
        record: populations to keep; all by default.

    Raises:
        BackendError: for inputs of the wrong shape or delays that are not balanced.
    """
    if not graph.is_balanced:
        raise BackendError("the reference needs balanced delays; run the pass balance_delays first")
    recorded = set(graph.populations if record is None else record)
    runner = _Runner(graph)
    for batch in batches:
        inputs, started = check_inputs(graph, batch), time.perf_counter()
        values = runner.window(inputs, recorded | {graph.readout.name})
        yield SpikeTrace(
            spikes={name: values[name] for name in graph.populations if name in recorded},
            logits=to_logits(graph, values[graph.readout.name]),
            meta=run_meta(graph, "reference", len(inputs), time.perf_counter() - started),
        )


def check_inputs(graph: SpikeGraph, inputs: np.ndarray) -> np.ndarray:
    """`inputs` as float64 (S, T or 1, *shape), or BackendError."""
    inputs = np.asarray(inputs, dtype=np.float64)
    shape = graph.data_input.shape
    if inputs.ndim != 2 + len(shape) or inputs.shape[2:] != shape or len(inputs) == 0:
        raise BackendError(
            f"inputs have shape {inputs.shape}; '{graph.data_input.name}' needs (samples, steps, *{shape})"
        )
    if inputs.shape[1] not in (1, graph.time_steps):
        raise BackendError(f"inputs have {inputs.shape[1]} steps; give 1 or {graph.time_steps}")
    if not np.isfinite(inputs).all():
        raise BackendError("inputs contain values that are not finite")
    return inputs


def input_values(graph: SpikeGraph, population: Input, inputs: np.ndarray) -> np.ndarray:
    """What an Input sends: (S, T, *shape) in real units, or integers in fixed point; read-only.

    What repeats is stored once, with a stride of 0.
    """
    samples, steps = len(inputs), graph.time_steps
    whole = (samples, steps, *population.shape)
    if population.kind == "constant":
        return np.broadcast_to(np.ones((1, 1, *population.shape), dtype=bool), whole)
    if population.kind == "clock":
        tick = np.zeros((1, steps, *population.shape), dtype=bool)
        tick[:, population.clock_step : population.clock_step + 1] = True
        return np.broadcast_to(tick, whole)
    if population.kind == "binary":
        if not np.isin(inputs, (0, 1)).all():
            raise BackendError(f"input '{population.name}' is binary; got values besides 0 and 1")
        inputs = inputs.astype(bool)
    elif graph.arithmetic == "fixed":
        inputs = quantise_input(population, inputs)
    return np.broadcast_to(inputs, whole)


def to_logits(graph: SpikeGraph, currents: np.ndarray) -> np.ndarray:
    """(S, T, classes) readout values -> (S, classes) logits in real units."""
    return currents.sum(axis=1) / (graph.time_steps * graph.readout.scale)


def run_meta(graph: SpikeGraph, backend: str, samples: int, seconds: float) -> dict[str, object]:
    """The facts that every trace carries."""
    return {
        "backend": backend,
        "arithmetic": graph.arithmetic,
        "samples": samples,
        "time_steps": graph.time_steps,
        "fingerprint": graph.fingerprint,
        "seconds": seconds,
    }


class _Runner:
    """Evaluates windows; carries what loops have in flight from one sample to the next."""

    def __init__(self, graph: SpikeGraph) -> None:
        self.graph = graph
        self.currents = Currents(graph)
        self.fixed, self.dtypes = self.currents.fixed, self.currents.dtypes
        self.loops = {
            name: [s for s in graph.incoming(name) if s.source == name] for name in graph.order
        }
        self.in_flight: dict[str, np.ndarray] = {}

    def window(self, inputs: np.ndarray, keep: Container[str]) -> dict[str, np.ndarray]:
        """Messages (S, T, *shape) of the populations in `keep`; others live until they were read."""
        values: dict[str, np.ndarray] = {}
        for index, name in enumerate(self.graph.order):
            values[name] = self._messages(name, inputs, values)
            for source in {name, *(s.source for s in self.graph.incoming(name))}:
                if self.graph.last_reader[source] <= index and source not in keep:
                    del values[source]
        return values

    def _messages(self, name: str, inputs: np.ndarray, values: dict[str, np.ndarray]) -> np.ndarray:
        population = self.graph.populations[name]
        if isinstance(population, Input):
            return input_values(self.graph, population, inputs)
        shape = (len(inputs), self.graph.time_steps, *population.shape)
        current = self.current(name, values, shape)
        if self.loops[name]:
            return self._with_loops(name, current)
        self.currents.check(name, current)
        if isinstance(population, LIF):
            return lif_window(self.currents.neurons[name], current)
        return self._graded(population, current)

    def current(
        self, name: str, values: dict[str, np.ndarray], shape: tuple[int, ...]
    ) -> np.ndarray:
        """What arrives from other populations, (S, T, *shape of `name`)."""
        current: np.ndarray | None = None
        for synapse in self.graph.incoming(name):
            if synapse.source != name:
                arriving = self.deliver(synapse, values[synapse.source])
                if current is None:
                    current = arriving if arriving.flags.writeable else arriving.copy()
                else:
                    current += arriving
        if current is None:
            return np.zeros(shape, self.dtypes[name])
        return current.reshape(shape)

    def deliver(self, synapse: AnySynapse, sent: np.ndarray) -> np.ndarray:
        """(S, T, *source shape) messages -> (S, T, n_target) currents.

        In an array of its own; read-only where the messages repeat, which are delivered once.
        """
        once = sent[tuple(slice(0, 1) if n == 0 else slice(None) for n in sent.strides[:2])]
        flat = once.reshape(once.shape[0] * once.shape[1], *once.shape[2:])
        currents = self.currents.deliver(synapse, flat).reshape(*once.shape[:2], -1)
        if once.shape == sent.shape:
            return currents
        return np.broadcast_to(currents, (*sent.shape[:2], currents.shape[-1]))

    def _graded(self, population: Population, current: np.ndarray) -> np.ndarray:
        if isinstance(population, Readout):
            current = current + population.bias
        return current.astype(np.int64) if self.fixed else current

    def _with_loops(self, name: str, current: np.ndarray) -> np.ndarray:
        """Step through the stream of samples, since loops reach from one window into the next."""
        population, steps = self.graph.populations[name], self.graph.time_steps
        longest = max(s.delay for s in self.loops[name])
        dtype = np.dtype(bool) if isinstance(population, LIF) else self.dtypes[name]
        past = self.in_flight.get(name, np.zeros((longest, *population.shape), dtype))
        stream = np.concatenate([past, np.zeros((len(current) * steps, *population.shape), dtype)])
        v = np.zeros(population.shape, self.dtypes[name])
        for step in range(len(current) * steps):
            if step % steps == 0:
                v[...] = 0
            now = current[step // steps, step % steps]
            for synapse in self.loops[name]:
                sent = stream[longest + step - synapse.delay]
                now += self.deliver(synapse, sent[None, None]).reshape(population.shape)
            self.currents.check(name, now)
            if isinstance(population, LIF):
                self.currents.neurons[name].step(v, now, stream[longest + step])
            else:
                stream[longest + step] = now
        self.in_flight[name] = stream[-longest:]
        sent = stream[longest:].reshape(current.shape)
        return sent if isinstance(population, LIF) else self._graded(population, sent)


def membranes(graph: SpikeGraph, spikes: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Membrane u of a LIF population before the reset, (S, T, *shape), from its sources' messages.

    Args:
        spikes: at least the messages of every source of `name`, (S, T, *shape) each.
    """
    population = graph.populations[name]
    assert isinstance(population, LIF)
    if any(s.source == name for s in graph.incoming(name)):
        raise BackendError(f"population '{name}' has a loop; its membrane is not recomputed")
    first = next(iter(spikes.values()))
    runner = _Runner(graph)
    current = runner.current(name, spikes, (*first.shape[:2], *population.shape))
    membrane = np.empty_like(current)
    v = np.zeros_like(current[:, 0])
    for t in range(current.shape[1]):
        u, _, v = lif_step(population, v, current[:, t], fixed=runner.fixed)
        membrane[:, t] = u
    return membrane


def lif_window(neurons: Neurons, current: np.ndarray) -> np.ndarray:
    """Spikes (S, T, *shape) of one window; `current` is used up."""
    spikes = np.empty(current.shape, dtype=bool)
    if neurons.is_memoryless:
        neurons.forget(current, spikes)
        return spikes
    v = np.zeros_like(current[:, 0])
    for t in range(current.shape[1]):
        neurons.step(v, current[:, t], spikes[:, t])
    return spikes
