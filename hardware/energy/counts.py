"""Operations that a run triggered: synapses by executed fan-out, neurons by step.

Axes: S samples, T steps of a window, n neurons of a population (its shape, flattened).
Counts are of the balanced graph, before shift registers or any other legalisation for a backend.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from hardware.energy.parts import part_of, part_order
from hardware.errors import HardwareError
from hardware.ir.fan_out import fan_out
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import LIF, Input, Population, Readout, is_graded, size
from hardware.ir.operators import Operator, make_operator
from hardware.ir.synapses import AnySynapse, Dense
from hardware.trace import SpikeTrace

SAMPLES_AT_ONCE = 64


class Operation(StrEnum):
    """What is counted. Relays and readouts are apart from LIF neurons: they have no threshold."""

    ACCUMULATE = "accumulates"
    MULTIPLY_ACCUMULATE = "multiply_accumulates"
    WEIGHT_READ = "weight_reads"
    NEURON_UPDATE_ACTIVE = "neuron_updates_active"
    NEURON_UPDATE_IDLE = "neuron_updates_idle"
    RELAY_UPDATE_ACTIVE = "relay_updates_active"
    RELAY_UPDATE_IDLE = "relay_updates_idle"
    SPIKE = "spikes_sent"
    GRADED_MESSAGE = "graded_messages_sent"
    MEMBRANE_READ = "membrane_reads"
    MEMBRANE_WRITE = "membrane_writes"


@dataclass(frozen=True, kw_only=True)
class Tally:
    """Operations of one population or synapse, over all samples; what is absent is zero."""

    where: str
    part: str
    operations: dict[Operation, int]


@dataclass(frozen=True, kw_only=True)
class OperationCounts:
    """Counts of one run.

    Attributes:
        samples: S, the number of samples that the counts are summed over.
        synapses: one tally per synapse, in the graph's order.
        populations: one tally per population, in the graph's order.
    """

    samples: int
    synapses: tuple[Tally, ...]
    populations: tuple[Tally, ...]

    @property
    def totals(self) -> dict[Operation, int]:
        """Every operation, summed over populations, synapses and samples."""
        return _sum(self.synapses + self.populations)

    @property
    def by_part(self) -> dict[str, dict[Operation, int]]:
        """The totals split by part of the network; the parts add up to the totals exactly."""
        tallies = self.synapses + self.populations
        parts = sorted({tally.part for tally in tallies}, key=part_order)
        return {part: _sum(t for t in tallies if t.part == part) for part in parts}

    @property
    def per_sample(self) -> dict[Operation, float]:
        """The totals divided by the number of samples."""
        return {operation: count / self.samples for operation, count in self.totals.items()}

    @property
    def synops_per_sample(self) -> float:
        """Synaptic operations per sample: accumulates plus multiply-accumulates."""
        totals = self.totals
        synops = totals[Operation.ACCUMULATE] + totals[Operation.MULTIPLY_ACCUMULATE]
        return synops / self.samples


def count_operations(graph: SpikeGraph, trace: SpikeTrace) -> OperationCounts:
    """Count what `graph` executed while `trace` was recorded.

    accumulates = sum over binary spikes of the stored non-zero connections of the neuron that
    spiked; multiply_accumulates the same over non-zero graded messages (of a Relay or a graded
    Input; `constant` and `clock` are binary); weight_reads = their sum.

    Every LIF neuron is updated at every step: active if at least one message reached it at that
    step or its bias is not zero, else idle. Relays and readouts are counted alike, on their own.
    An update of a LIF with membrane_decay > 0 reads and writes its membrane once; LIF without
    memory (decay 0), relays and readouts keep no state and read and write nothing.

    A population's message counts once as sent, however many synapses it enters. On a loop, what is
    in flight at the end of a window is taken to arrive at the start of the same window instead of
    the next sample's, so that samples add up.

    Args:
        graph: balanced, as it was run (in fixed point: the quantised graph).
        trace: every population recorded.

    Raises:
        HardwareError: for a trace of another graph, a population that is missing or of another
            shape, no samples, or delays that are not balanced.
    """
    counter = OperationCounter(graph)
    counter.add(trace)
    return counter.counts


class OperationCounter:
    """Adds up what `graph` executed over traces of one batch of samples after another."""

    def __init__(self, graph: SpikeGraph) -> None:
        self.graph = graph
        self.parts: list[OperationCounts] = []
        self.fan_outs = {id(s): fan_out(graph, s) for s in graph.synapses}
        self.reaches: dict[int, Operator] = {}

    def add(self, trace: SpikeTrace) -> None:
        """Count a trace of the next samples; what is refused, and why, as in `count_operations`."""
        graph = self.graph
        _check_trace(graph, trace)
        tallies = [
            _tally_synapse(graph, trace, synapse, self.fan_outs[id(synapse)])
            for synapse in graph.synapses
        ]
        populations = []
        for name, population in graph.populations.items():
            operations = _count_sent(population, trace)
            if not isinstance(population, Input):
                active = self._count_active(population, trace)
                operations |= _count_updates(population, active, trace.samples * graph.time_steps)
            populations.append(Tally(where=name, part=part_of(name), operations=operations))
        self.parts.append(
            OperationCounts(
                samples=trace.samples, synapses=tuple(tallies), populations=tuple(populations)
            )
        )

    @property
    def counts(self) -> OperationCounts:
        """Over all samples so far; HardwareError if there were none."""
        if not self.parts:
            raise HardwareError("no samples were counted; add a trace of at least 1")
        return OperationCounts(
            samples=sum(part.samples for part in self.parts),
            synapses=_add_up([part.synapses for part in self.parts]),
            populations=_add_up([part.populations for part in self.parts]),
        )

    def _count_active(self, population: Population, trace: SpikeTrace) -> int:
        """Number of (sample, step, neuron) at which a message arrives or a bias drives the neuron."""
        bias = np.asarray(getattr(population, "bias", 0)) != 0
        bias = np.broadcast_to(bias, population.shape).ravel()
        if bias.all():
            return trace.spikes[population.name].size
        count = 0
        for start in range(0, trace.samples, SAMPLES_AT_ONCE):
            chunk = slice(start, start + SAMPLES_AT_ONCE)
            shape = (*trace.spikes[population.name][chunk].shape[:2], size(population))
            active = np.broadcast_to(bias, shape).copy()
            for synapse in self.graph.incoming(population.name):
                sent = _sent(trace, synapse.source)[chunk]
                if synapse.source == synapse.target:
                    sent = np.roll(sent, synapse.delay, axis=1)
                active |= self._reached(synapse, sent)
            count += int(np.count_nonzero(active))
        return count

    def _reached(self, synapse: AnySynapse, sent: np.ndarray) -> np.ndarray:
        """(S, T, n_source) messages -> (S, T, n_target or 1) whether at least one arrives."""
        used = synapse.weight != 0
        if isinstance(synapse, Dense) and used.all():
            return sent.any(axis=-1, keepdims=True)
        reach = self.reaches.get(id(synapse))
        if reach is None:
            # Counts of connections onto a neuron stay far below 2^24: exact in float32.
            ones = replace(synapse, weight=used.astype(np.float32), exponent=0)
            reach = make_operator(self.graph, ones, np.dtype(np.float32))
            self.reaches[id(synapse)] = reach
        shape = self.graph.populations[synapse.source].shape
        return (reach(sent.reshape(-1, *shape)) > 0).reshape(*sent.shape[:2], -1)


def _add_up(parts: list[tuple[Tally, ...]]) -> tuple[Tally, ...]:
    return tuple(
        replace(
            same[0],
            operations={o: sum(t.operations[o] for t in same) for o in same[0].operations},
        )
        for same in zip(*parts, strict=True)
    )


def _sum(tallies: Iterable[Tally]) -> dict[Operation, int]:
    total = dict.fromkeys(Operation, 0)
    for tally in tallies:
        for operation, count in tally.operations.items():
            total[operation] += count
    return total


def _check_trace(graph: SpikeGraph, trace: SpikeTrace) -> None:
    if trace.meta.get("fingerprint") != graph.fingerprint:
        raise HardwareError(
            f"the trace was recorded from another graph (fingerprint "
            f"{str(trace.meta.get('fingerprint'))[:12]}, this graph has {graph.fingerprint[:12]}); "
            f"give the graph that was run, in fixed point the quantised one"
        )
    if not graph.is_balanced:
        raise HardwareError(
            "the graph's delays are not balanced; count on the graph that balance_delays returns, "
            "before it is legalised for a backend"
        )
    if trace.samples == 0:
        raise HardwareError("the trace has no samples; record at least 1")
    for name, population in graph.populations.items():
        if name not in trace.spikes:
            raise HardwareError(f"the trace lacks population '{name}'; record all populations")
        expected = (trace.samples, graph.time_steps, *population.shape)
        if trace.spikes[name].shape != expected:
            raise HardwareError(
                f"the trace of '{name}' has shape {trace.spikes[name].shape}; needs {expected}"
            )


def _sent(trace: SpikeTrace, name: str) -> np.ndarray:
    """(S, T, n) whether each neuron sent a message (a spike, or a number that is not zero)."""
    values = trace.spikes[name]
    return values.reshape(*values.shape[:2], -1).astype(bool, copy=False)


def _tally_synapse(
    graph: SpikeGraph, trace: SpikeTrace, synapse: AnySynapse, fan_outs: np.ndarray
) -> Tally:
    messages = np.count_nonzero(_sent(trace, synapse.source), axis=(0, 1)).astype(np.int64)
    synops = int(messages @ fan_outs)
    graded = is_graded(graph.populations[synapse.source])
    kind = Operation.MULTIPLY_ACCUMULATE if graded else Operation.ACCUMULATE
    return Tally(
        where=f"{synapse.source} -> {synapse.target}",
        part=part_of(synapse.target) if synapse.expert is None else f"experts.{synapse.expert[1]}",
        operations={kind: synops, Operation.WEIGHT_READ: synops},
    )


def _count_sent(population: Population, trace: SpikeTrace) -> dict[Operation, int]:
    if isinstance(population, Readout):
        return {}
    kind = Operation.GRADED_MESSAGE if is_graded(population) else Operation.SPIKE
    return {kind: int(np.count_nonzero(trace.spikes[population.name]))}


def _count_updates(population: Population, active: int, steps: int) -> dict[Operation, int]:
    updates = steps * size(population)
    if not isinstance(population, LIF):
        return {
            Operation.RELAY_UPDATE_ACTIVE: active,
            Operation.RELAY_UPDATE_IDLE: updates - active,
        }
    accesses = updates if population.membrane_decay > 0 else 0
    return {
        Operation.NEURON_UPDATE_ACTIVE: active,
        Operation.NEURON_UPDATE_IDLE: updates - active,
        Operation.MEMBRANE_READ: accesses,
        Operation.MEMBRANE_WRITE: accesses,
    }
