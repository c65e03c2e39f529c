"""Some populations of a graph in hardware time, a few steps at a time: the arithmetic of a fused process.

`hardware.ir.stream` is what this must equal: a message of step h arrives at h + delay, membranes are
cleared at steps congruent to the depth modulo T. Here several consecutive steps are one batch, which the
synapses take as the rows of one matrix product; this is possible because a delay is at least one step
and sources come before their targets. Only a population with a loop onto itself goes step by step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from hardware.ir.currents import Currents
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import LIF, Input, Population, Readout
from hardware.ir.synapses import AnySynapse


class Stepper:
    """Computes what the populations `names` send.

    Args:
        names: populations that are no inputs. What they hear from other populations, `sources`, is
            given to `advance`.
        at_most: the most steps that one call of `advance` takes.
    """

    def __init__(self, graph: SpikeGraph, names: Iterable[str], *, at_most: int) -> None:
        chosen = set(names)
        self.graph = graph
        self.names = tuple(name for name in graph.order if name in chosen)
        self.sources = outside_sources(graph, self.names)
        self.step = 0
        self.currents = Currents(graph)
        self._past = {
            name: _Past(
                graph.populations[name].shape,
                self._message_dtype(name),
                reach=max((effective_delay(graph, s) for s in self._read(name)), default=0),
                at_most=at_most,
            )
            for name in (*self.sources, *self.names)
        }
        self._membranes = {
            name: np.zeros(graph.populations[name].shape, self.currents.dtypes[name])
            for name in self.names
            if isinstance(graph.populations[name], LIF)
        }

    def advance(self, count: int, outside: Mapping[str, np.ndarray]) -> None:
        """Do the next `count` hardware steps.

        Args:
            outside: what the sources send in these steps, (count, *shape) each.

        Raises:
            BackendError: an accumulated input left the range of integers; it names the population.
        """
        for past in self._past.values():
            past.open(count)
        for name in self.sources:
            self._past[name].now[:] = outside[name].reshape(self._past[name].now.shape)
        for name in self.names:
            self._compute(self.graph.populations[name], count)
        self.step += count

    def sent(self, name: str) -> np.ndarray:
        """(count, *shape): what a population (or source) sent in the steps of the last call."""
        return self._past[name].now

    def _read(self, name: str) -> list[AnySynapse]:
        return [s for s in self.graph.outgoing(name) if s.target in self.names]

    def _message_dtype(self, name: str) -> np.dtype:
        population = self.graph.populations[name]
        binary = isinstance(population, LIF) or (
            isinstance(population, Input) and population.kind != "graded"
        )
        return np.dtype(bool) if binary else self.currents.dtypes.get(name, np.dtype(np.float64))

    def _compute(self, population: Population, count: int) -> None:
        name, sent = population.name, self._past[population.name].now
        current: np.ndarray | None = None
        loops = []
        for synapse in self.graph.incoming(name):
            if synapse.source == name:
                loops.append(synapse)
                continue
            heard = self._past[synapse.source].before(effective_delay(self.graph, synapse))
            arriving = self.currents.deliver(synapse, heard)
            current = arriving if current is None else np.add(current, arriving, out=current)
        if current is None:
            current = np.zeros(sent.shape, self.currents.dtypes[name])
        current = current.reshape(sent.shape)
        if not loops:
            self._send(population, current, sent, self.step)
            return
        for row in range(count):
            now = current[row : row + 1]
            for loop in loops:
                heard = self._past[name].before(loop.delay)[row : row + 1]
                now += self.currents.deliver(loop, heard).reshape(now.shape)
            self._send(population, now, sent[row : row + 1], self.step + row)

    def _send(
        self, population: Population, current: np.ndarray, sent: np.ndarray, first: int
    ) -> None:
        self.currents.check(population.name, current)
        if isinstance(population, LIF):
            self._fire(population, current, sent, first)
        else:
            sent[:] = current + population.bias if isinstance(population, Readout) else current

    def _fire(self, population: LIF, current: np.ndarray, sent: np.ndarray, first: int) -> None:
        """Spikes of consecutive steps; equal steps of different windows are computed at once."""
        neurons, length = self.currents.neurons[population.name], self.graph.time_steps
        if neurons.is_memoryless:
            neurons.forget(current, sent)
            return
        phase = (first - self.graph.depth[population.name]) % length
        windows = (phase + len(current) - 1) // length + 1
        v = np.zeros((windows, *population.shape), current.dtype)
        if phase:
            v[0] = self._membranes[population.name]
        for t in range(length):
            begin = (t - phase) % length
            now = slice(begin, None, length)
            if begin < len(current):
                window = (phase + begin) // length
                these = slice(window, window + len(current[now]))
                neurons.step(v[these], current[now], sent[now])
        self._membranes[population.name] = v[-1]


def outside_sources(graph: SpikeGraph, names: Iterable[str]) -> tuple[str, ...]:
    """What the populations `names` hear from others, in the graph's order."""
    inside = set(names)
    heard = {s.source for name in inside for s in graph.incoming(name)} - inside
    return tuple(name for name in graph.order if name in heard)


def effective_delay(graph: SpikeGraph, synapse: AnySynapse) -> int:
    """Steps from sending to arrival; a constant has always been there, whatever its delay."""
    source = graph.populations[synapse.source]
    return 1 if isinstance(source, Input) and source.kind == "constant" else synapse.delay


class _Past:
    """What one population sent in the last `reach` steps and in those that are being computed."""

    def __init__(
        self, shape: tuple[int, ...], dtype: np.dtype, *, reach: int, at_most: int
    ) -> None:
        self.reach = reach
        # Twice the room that is needed: the past is moved to the front only once in a while.
        self._rows = np.zeros((2 * (reach + at_most), *shape), dtype)
        self._first, self._end = reach, reach

    def open(self, count: int) -> None:
        """Make room for the next steps; what was `now` becomes past."""
        first, reach = self._end, self.reach
        if first + count > len(self._rows):
            self._rows[:reach] = self._rows[first - reach : first]
            first = reach
        self._first, self._end = first, first + count

    @property
    def now(self) -> np.ndarray:
        """The rows of the present steps."""
        return self._rows[self._first : self._end]

    def before(self, delay: int) -> np.ndarray:
        """The rows of the same number of steps, `delay` steps earlier."""
        return self._rows[self._first - delay : self._end - delay]
