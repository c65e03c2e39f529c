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
from collections.abc import Callable, Iterable

import numpy as np
from scipy.sparse import csr_matrix

from hardware.errors import BackendError
from hardware.ir.arithmetic import check_range, lif_step, quantise_input, shift
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import LIF, Input, Readout, Relay
from hardware.ir.synapses import AnySynapse, Dense
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
    if not graph.is_balanced:
        raise BackendError("the reference needs balanced delays; run the pass balance_delays first")
    started = time.perf_counter()
    keep = set(graph.populations if record is None else record)
    runner = _Runner(graph)
    kept: dict[str, list[np.ndarray]] = {name: [] for name in graph.populations if name in keep}
    currents: list[np.ndarray] = []
    for start in range(0, len(inputs), BATCH):
        values = runner.window(inputs[start : start + BATCH])
        for name, chunks in kept.items():
            chunks.append(values[name])
        currents.append(values[graph.readout.name])
        if progress:
            progress(min(start + BATCH, len(inputs)), len(inputs))
    return SpikeTrace(
        spikes={name: np.concatenate(chunks) for name, chunks in kept.items()},
        logits=to_logits(graph, np.concatenate(currents)),
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
    """What an Input sends: (S, T, *shape) in real units, or integers in fixed point."""
    samples, steps = len(inputs), graph.time_steps
    if population.kind == "constant":
        return np.ones((samples, steps, *population.shape), dtype=bool)
    if population.kind == "clock":
        tick = np.zeros((samples, steps, *population.shape), dtype=bool)
        tick[:, population.clock_step : population.clock_step + 1] = True
        return tick
    inputs = np.broadcast_to(inputs, (samples, steps, *population.shape))
    if population.kind == "binary":
        if not np.isin(inputs, (0, 1)).all():
            raise BackendError(f"input '{population.name}' is binary; got values besides 0 and 1")
        return inputs.astype(bool)
    return quantise_input(population, inputs) if graph.arithmetic == "fixed" else inputs


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
        self.fixed = graph.arithmetic == "fixed"
        self.dtype = np.int64 if self.fixed else np.float64
        self.weights: dict[int, np.ndarray | csr_matrix] = {}
        for synapse in graph.synapses:
            if isinstance(
                synapse, Dense
            ):  # integer sums are exact in float64 and much faster there
                self.weights[id(synapse)] = synapse.weight.astype(np.float64).T.copy()
            else:
                self.weights[id(synapse)] = csr_matrix(graph.matrix(synapse), dtype=np.float64)
        self.loops = {
            name: [s for s in graph.incoming(name) if s.source == name] for name in graph.order
        }
        self.in_flight: dict[str, np.ndarray] = {}

    def window(self, inputs: np.ndarray) -> dict[str, np.ndarray]:
        values: dict[str, np.ndarray] = {}
        for name in self.graph.order:
            population = self.graph.populations[name]
            if isinstance(population, Input):
                values[name] = input_values(self.graph, population, inputs)
                continue
            current = np.zeros((len(inputs), self.graph.time_steps, *population.shape), self.dtype)
            for synapse in self.graph.incoming(name):
                if synapse.source != name:
                    current += self.deliver(synapse, values[synapse.source]).reshape(current.shape)
            if self.fixed:
                check_range(population, current)
            if self.loops[name]:
                values[name] = self._with_loops(name, current)
            else:
                values[name] = self._evaluate(name, current)
        return values

    def deliver(self, synapse: AnySynapse, sent: np.ndarray) -> np.ndarray:
        """(S, T, *source shape) messages -> (S, T, n_target) currents."""
        flat = sent.reshape(sent.shape[0] * sent.shape[1], -1).astype(np.float64)
        weight = self.weights[id(synapse)]
        current = flat @ weight if isinstance(weight, np.ndarray) else (weight @ flat.T).T
        if self.fixed:
            current = shift(np.rint(current).astype(np.int64), synapse.exponent)
        return np.ascontiguousarray(current).reshape(*sent.shape[:2], -1)

    def _evaluate(self, name: str, current: np.ndarray) -> np.ndarray:
        population = self.graph.populations[name]
        if isinstance(population, Relay):
            return current
        if isinstance(population, Readout):
            return current + population.bias
        assert isinstance(population, LIF)
        return lif_window(population, current, fixed=self.fixed)[0]

    def _with_loops(self, name: str, current: np.ndarray) -> np.ndarray:
        """Step through the stream of samples, since loops reach from one window into the next."""
        population, steps = self.graph.populations[name], self.graph.time_steps
        longest = max(s.delay for s in self.loops[name])
        dtype = bool if isinstance(population, LIF) else self.dtype
        past = self.in_flight.get(name, np.zeros((longest, *population.shape), dtype))
        stream = np.concatenate([past, np.zeros((len(current) * steps, *population.shape), dtype)])
        v = np.zeros(population.shape, self.dtype)
        for step in range(len(current) * steps):
            if step % steps == 0:
                v = np.zeros_like(v)
            now = current[step // steps, step % steps]
            for synapse in self.loops[name]:
                sent = stream[longest + step - synapse.delay]
                now = now + self.deliver(synapse, sent[None, None]).reshape(population.shape)
            if self.fixed:
                check_range(population, now)
            if isinstance(population, LIF):
                _, stream[longest + step], v = lif_step(population, v, now, fixed=self.fixed)
            else:
                stream[longest + step] = now
        self.in_flight[name] = stream[-longest:]
        return stream[longest:].reshape(current.shape)


def membranes(graph: SpikeGraph, spikes: dict[str, np.ndarray], name: str) -> np.ndarray:
    """Membrane u of a LIF population before the reset, (S, T, *shape), from its sources' messages.

    Args:
        spikes: at least the messages of every source of `name`, (S, T, *shape) each.
    """
    population = graph.populations[name]
    assert isinstance(population, LIF)
    runner = _Runner(graph)
    first = next(iter(spikes.values()))
    current = np.zeros((*first.shape[:2], *population.shape), runner.dtype)
    for synapse in graph.incoming(name):
        if synapse.source == name:
            raise BackendError(f"population '{name}' has a loop; its membrane is not recomputed")
        current += runner.deliver(synapse, spikes[synapse.source]).reshape(current.shape)
    return lif_window(population, current, fixed=runner.fixed)[1]


def lif_window(
    population: LIF, current: np.ndarray, *, fixed: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Spikes and membranes before the reset, both (S, T, *shape), of one window."""
    spikes = np.empty(current.shape, dtype=bool)
    membrane = np.empty_like(current)
    v = np.zeros_like(current[:, 0])
    for t in range(current.shape[1]):
        membrane[:, t], spikes[:, t], v = lif_step(population, v, current[:, t], fixed=fixed)
    return spikes, membrane
