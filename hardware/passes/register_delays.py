"""Replace delays by shift registers, for backends whose synapses take one step, or only a few.

Each source with a reader further away than that gets one register: slot k of the register
repeats what the source sent k + 1 steps before. One population with a loop onto itself holds all
slots, which costs far fewer processes than a chain of relays.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hardware.errors import GraphError
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import LIF, Input, Population, Relay, is_graded, size
from hardware.ir.synapses import AnySynapse, Sparse


def register_delays(graph: SpikeGraph, *, longest: int = 1) -> SpikeGraph:
    """The same network with no delay above `longest`. Constant inputs need no register.

    A clock has no depth but the one its readers give it, so its readers at different depths get
    clocks of their own.

    Args:
        longest: the longest delay of the backend's own synapses, in steps.

    Raises:
        GraphError: a loop with a longer delay, which would need a cycle of two populations.
    """
    for synapse in graph.synapses:
        if synapse.source == synapse.target and synapse.delay > longest:
            raise GraphError(
                f"population '{synapse.source}' has a loop with delay {synapse.delay}; "
                f"a backend {'without' if longest == 1 else 'with short'} delays runs loops with "
                f"delay {1 if longest == 1 else f'1 to {longest}'}"
            )
    populations: list[Population] = []
    synapses: list[AnySynapse] = []
    registers: dict[str, str] = {}
    for population in graph.populations.values():
        populations.append(population)
        if _is_clock(population):
            later = {s.delay for s in graph.outgoing(population.name) if s.delay > longest}
            populations += [
                replace(population, name=_late_name(population, d)) for d in sorted(later)
            ]
            continue
        latest = max((s.delay for s in _delayed(graph, population)), default=1)
        if latest > longest:
            register, wiring = _register(graph, population, latest - longest)
            registers[population.name] = register.name
            populations.append(register)
            synapses.extend(wiring)
    for synapse in graph.synapses:
        source = graph.populations[synapse.source]
        if synapse.delay > longest and _is_clock(source):
            synapses.append(replace(synapse, source=_late_name(source, synapse.delay), delay=1))
        elif synapse.delay > longest and synapse.source in registers:
            synapses.append(_read_slot(graph, synapse, registers[synapse.source], longest))
        elif isinstance(source, Input) and source.kind == "constant":
            synapses.append(replace(synapse, delay=1))
        else:
            synapses.append(synapse)
    return graph.with_(populations=populations, synapses=synapses)


def _is_clock(population: Population) -> bool:
    return isinstance(population, Input) and population.kind == "clock"


def _late_name(clock: Population, delay: int) -> str:
    return f"{clock.name}.late{delay - 1}"


def _delayed(graph: SpikeGraph, population: Population) -> list[AnySynapse]:
    if isinstance(population, Input) and population.kind == "constant":
        return []
    return graph.outgoing(population.name)


def _register(graph: SpikeGraph, source: Population, slots: int) -> tuple[Population, list[Sparse]]:
    name, n, fixed = f"{source.name}.delay", size(source), graph.arithmetic == "fixed"
    shape = (slots, *source.shape)
    register: Population
    if is_graded(source):
        register = Relay(name=name, shape=shape, scale=source.scale, role="register")
    else:
        register = LIF(
            name=name,
            shape=shape,
            membrane_decay=0.0,
            threshold=np.asarray(1 if fixed else 0.5),
            bias=np.asarray(0 if fixed else 0.0),
            scale=2.0 if fixed else 1.0,
            role="register",
        )
    # In fixed point 1 is the even weight 2, halved again where the number itself matters.
    weight, exponent = (2, -1 if is_graded(source) else 0) if fixed else (1.0, 0)

    def wire(origin: str, count: int, offset: int) -> Sparse:
        index = np.arange(count)
        return Sparse(
            source=origin,
            target=name,
            rows=index + offset,
            columns=index,
            weight=np.full(count, weight),
            exponent=exponent,
        )

    wiring = [wire(source.name, n, 0)]
    if slots > 1:
        wiring.append(wire(name, n * (slots - 1), n))
    return register, wiring


def _read_slot(graph: SpikeGraph, synapse: AnySynapse, register: str, delay: int) -> Sparse:
    """The synapse from the slot that is `delay` steps too early."""
    matrix = graph.matrix(synapse).tocoo()
    offset = (synapse.delay - delay - 1) * size(graph.populations[synapse.source])
    return Sparse(
        source=register,
        target=synapse.target,
        rows=matrix.row.astype(np.int64),
        columns=matrix.col.astype(np.int64) + offset,
        weight=matrix.data,
        delay=delay,
        exponent=synapse.exponent,
        expert=synapse.expert,
    )
