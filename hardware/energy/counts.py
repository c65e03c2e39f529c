"""Operations that a run triggered: synapses by executed fan-out, neurons by step.

Axes: S samples, T steps of a window, n neurons of a population (its shape, flattened).
Counts are of the balanced graph, before shift registers or any other legalisation for a backend.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hardware.energy.operations import Operation
from hardware.energy.parts import part_of
from hardware.energy.state import CarriedState
from hardware.energy.tally import OperationCounts, Tally, add_counts
from hardware.errors import HardwareError
from hardware.ir.fan_out import fan_out
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import LIF, Input, Population, Readout, is_graded, size
from hardware.ir.operators import Operator, make_operator
from hardware.ir.synapses import AnySynapse, Conv2d, Dense
from hardware.loihi.layout import CoreLayout, Reach, reach_of
from hardware.trace import SpikeTrace

SAMPLES_AT_ONCE = 64


def count_operations(
    graph: SpikeGraph, trace: SpikeTrace, layout: CoreLayout | None = None
) -> OperationCounts:
    """Count what `graph` executed while `trace` was recorded.

    accumulates = sum over binary spikes of the stored non-zero connections of the neuron that
    spiked; multiply_accumulates the same over non-zero graded messages (of a Relay or a graded
    Input; `constant` and `clock` are binary); weight_reads and membrane_updates_by_event = their sum.

    Every LIF neuron is updated at every step: active if at least one message reached it at that
    step or its bias is not zero, else idle. Relays and readouts are counted alike, on their own.
    An update of a LIF with membrane_decay > 0 reads and writes its membrane once; LIF without
    memory (decay 0), relays and readouts keep no state and read and write nothing.

    A population's message counts once as sent, however many synapses it enters. On a loop, what is
    in flight at the end of a window is taken to arrive at the start of the same window instead of
    the next sample's, so that samples add up.

    With a layout: a message goes once to each core with a neuron that it reaches through a weight
    that is not zero, its own core included (core_messages), along rows and columns of tiles (hops).
    An update changes state (state_changes) if it is active or the membrane that the step before
    left behind is not zero. All of them are the sender's.

    Args:
        graph: balanced, as it was run (in fixed point: the quantised graph).
        trace: every population recorded.
        layout: of the graph (float or fixed) on a chip: `hardware.loihi.mapping.map_graph(...).layout`.

    Raises:
        HardwareError: for a trace of another graph, a population that is missing or of another
            shape, no samples, delays that are not balanced, or a layout that does not cover the graph.
    """
    counter = OperationCounter(graph, layout)
    counter.add(trace)
    return counter.counts


class OperationCounter:
    """Adds up what `graph` executed over traces of one batch of samples after another."""

    def __init__(self, graph: SpikeGraph, layout: CoreLayout | None = None) -> None:
        self.graph = graph
        self.layout = layout
        self.parts: list[OperationCounts] = []
        self.fan_outs = {id(s): fan_out(graph, s) for s in graph.synapses}
        self.reaches: dict[int, Operator] = {}
        self.routes: dict[str, Reach] = {}
        if layout is not None:
            self.routes = {name: reach_of(graph, layout, name) for name in graph.populations}
            self.state = CarriedState(graph)

    def add(self, trace: SpikeTrace) -> None:
        """Count a trace of the next samples; what is refused, and why, as in `count_operations`."""
        graph = self.graph
        _check_trace(graph, trace)
        synapses = [
            _tally_synapse(graph, trace, synapse, self.fan_outs[id(synapse)])
            for synapse in graph.synapses
        ]
        populations = [
            Tally(
                where=name,
                part=part_of(name),
                operations=self._count_population(population, trace),
                states=size(population),
            )
            for name, population in graph.populations.items()
        ]
        self.parts.append(
            OperationCounts(
                samples=trace.samples,
                time_steps=graph.time_steps,
                synapses=tuple(synapses),
                populations=tuple(populations),
                chip=None if self.layout is None else self.layout.chip,
                chips=0 if self.layout is None else self.layout.chips,
            )
        )

    @property
    def counts(self) -> OperationCounts:
        """Over all samples so far; HardwareError if there were none."""
        if not self.parts:
            raise HardwareError("no samples were counted; add a trace of at least 1")
        return add_counts(self.parts)

    def _count_population(self, population: Population, trace: SpikeTrace) -> dict[Operation, int]:
        operations = _count_sent(population, trace)
        if self.layout is not None and not isinstance(population, Readout):
            operations |= _count_routed(population, trace, self.routes[population.name])
        if isinstance(population, Input):
            return operations
        active = changed = 0
        for start in range(0, trace.samples, SAMPLES_AT_ONCE):
            sent = {
                name: trace.spikes[name][start : start + SAMPLES_AT_ONCE]
                for name in self._heard(population)
            }
            reached = self._active(population, sent)
            active += int(np.count_nonzero(reached))
            if self.layout is not None:
                if isinstance(population, LIF):
                    reached |= self.state.of(population, sent).reshape(reached.shape)
                changed += int(np.count_nonzero(reached))
        operations |= _count_updates(population, active, trace.samples * self.graph.time_steps)
        return operations | ({Operation.STATE_CHANGE: changed} if self.layout is not None else {})

    def _heard(self, population: Population) -> set[str]:
        return {population.name, *(s.source for s in self.graph.incoming(population.name))}

    def _active(self, population: Population, sent: dict[str, np.ndarray]) -> np.ndarray:
        """(S, T, n) whether a message arrives or a bias drives the neuron."""
        bias = np.asarray(getattr(population, "bias", 0)) != 0
        bias = np.broadcast_to(bias, population.shape).ravel()
        active = np.broadcast_to(bias, (*sent[population.name].shape[:2], size(population))).copy()
        if bias.all():
            return active
        for synapse in self.graph.incoming(population.name):
            messages = _is_sent(sent[synapse.source])
            if synapse.source == synapse.target:
                messages = np.roll(messages, synapse.delay, axis=1)
            active |= self._reached(synapse, messages)
        return active

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


def _is_sent(values: np.ndarray) -> np.ndarray:
    """(S, T, n) whether each neuron sent a message (a spike, or a number that is not zero)."""
    return values.reshape(*values.shape[:2], -1).astype(bool, copy=False)


def _messages(trace: SpikeTrace, name: str) -> np.ndarray:
    """(n,) messages of each neuron."""
    return np.count_nonzero(_is_sent(trace.spikes[name]), axis=(0, 1)).astype(np.int64)


_BY_KIND = {
    False: (
        Operation.ACCUMULATE,
        Operation.ACCUMULATE_DENSE,
        Operation.ACCUMULATE_CONVOLUTION,
        Operation.ACCUMULATE_SPARSE,
    ),
    True: (
        Operation.MULTIPLY_ACCUMULATE,
        Operation.MULTIPLY_ACCUMULATE_DENSE,
        Operation.MULTIPLY_ACCUMULATE_CONVOLUTION,
        Operation.MULTIPLY_ACCUMULATE_SPARSE,
    ),
}


def _tally_synapse(
    graph: SpikeGraph, trace: SpikeTrace, synapse: AnySynapse, fan_outs: np.ndarray
) -> Tally:
    synops = int(_messages(trace, synapse.source) @ fan_outs)
    basic, dense, convolution, sparse = _BY_KIND[is_graded(graph.populations[synapse.source])]
    kind = (
        dense
        if isinstance(synapse, Dense)
        else convolution
        if isinstance(synapse, Conv2d)
        else sparse
    )
    return Tally(
        where=f"{synapse.source} -> {synapse.target}",
        part=part_of(synapse.target) if synapse.expert is None else f"experts.{synapse.expert[1]}",
        operations={
            basic: synops,
            kind: synops,
            Operation.WEIGHT_READ: synops,
            Operation.EVENT_UPDATE: synops,
        },
        weights=synapse.weight.size,
        states=size(graph.populations[synapse.target]),
    )


def _count_sent(population: Population, trace: SpikeTrace) -> dict[Operation, int]:
    if isinstance(population, Readout):
        return {}
    sent = int(np.count_nonzero(trace.spikes[population.name]))
    if is_graded(population):
        return {Operation.GRADED_MESSAGE: sent}
    of_neurons = {Operation.NEURON_SPIKE: sent} if isinstance(population, LIF) else {}
    return {Operation.SPIKE: sent} | of_neurons


def _count_routed(population: Population, trace: SpikeTrace, route: Reach) -> dict[Operation, int]:
    sent = _messages(trace, population.name)
    cores, columns, rows = (
        (
            Operation.GRADED_CORE_MESSAGE,
            Operation.GRADED_HOP_EAST_WEST,
            Operation.GRADED_HOP_NORTH_SOUTH,
        )
        if is_graded(population)
        else (Operation.CORE_MESSAGE, Operation.HOP_EAST_WEST, Operation.HOP_NORTH_SOUTH)
    )
    return {
        cores: int(sent @ route.cores),
        columns: int(sent @ route.east_west),
        rows: int(sent @ route.north_south),
    }


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
