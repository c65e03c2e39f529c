"""One block of a lowered transformer as a graph of its own, with its inputs replayed.

What the block hears from the rest of the network (the residual stream before it and the prompt's spikes)
was recorded in a run of the whole network. One input sends it as recorded; a relay or a neuron without
memory of the same name and shape hands each part on, so that the block itself is cut out unchanged. A
readout takes the stream behind the block.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hardware.ir import LIF, Input, Readout, Relay, Sparse, SpikeGraph
from hardware.ir.nodes import Population, is_graded, is_sourceless_input, size
from hardware.passes.balance_delays import balance_delays
from hardware.trace import SpikeTrace

REPLAY_BITS = 24


@dataclass(frozen=True, kw_only=True)
class Block:
    """A cut-out block.

    Attributes:
        graph: balanced.
        inputs: (S, T, n), what was recorded.
        names: the populations of the whole graph that it holds.
        replayed: those whose messages come from the recording.
    """

    graph: SpikeGraph
    inputs: np.ndarray
    names: tuple[str, ...]
    replayed: tuple[str, ...]


def cut_out(graph: SpikeGraph, prefix: str, trace: SpikeTrace) -> Block:
    """The populations whose names begin with `prefix`, and the streams between them.

    Args:
        trace: with the messages of at least all that the block hears.

    Raises:
        ValueError: no population has that prefix.
    """
    own = {n for n in graph.populations if n.startswith(prefix)}
    if not own:
        raise ValueError(f"no population's name begins with {prefix!r}")
    names = [n for n in graph.order if n in own or _is_between(graph, n, own)]
    inside = set(names)
    heard = dict.fromkeys(s.source for n in names for s in graph.incoming(n))
    outside = [n for n in heard if n not in inside]
    signals = [n for n in outside if is_sourceless_input(graph.populations[n])]
    replayed = [n for n in outside if n not in signals]
    fixed = graph.arithmetic == "fixed"
    parts = [trace.spikes[n].reshape(*trace.spikes[n].shape[:2], -1) for n in replayed]
    inputs = np.concatenate(parts, axis=2).astype(np.float64)
    recording = Input(
        name="recording",
        shape=(inputs.shape[2],),
        limit=float(np.abs(inputs).max() + 1),
        bits=REPLAY_BITS,
    )
    populations: list[Population] = [recording]
    synapses = [s for n in names for s in graph.incoming(n)]
    offset = 0
    for name in replayed:
        population = graph.populations[name]
        populations.append(_repeater(population, fixed=fixed))
        graded = is_graded(population)
        synapses.append(_one_to_one("recording", offset, name, size(population), graded, fixed))
        offset += size(population)
    last = graph.populations[names[-1]]
    zero = np.asarray(0 if fixed else 0.0)
    populations += [graph.populations[n] for n in (*signals, *names)]
    populations.append(Readout(name="block.out", shape=last.shape, bias=zero, scale=last.scale))
    synapses.append(_one_to_one(last.name, 0, "block.out", size(last), True, fixed))
    cut = replace(
        graph,
        populations={p.name: p for p in populations},
        synapses=tuple(synapses),
        notes={},
    )
    return Block(
        graph=balance_delays(cut), inputs=inputs, names=tuple(names), replayed=tuple(replayed)
    )


def _is_between(graph: SpikeGraph, name: str, own: set[str]) -> bool:
    """A stream that the block writes: what it hears last of all comes from the block."""
    return isinstance(graph.populations[name], Relay) and any(
        s.source in own for s in graph.incoming(name)
    )


def _repeater(population: Population, *, fixed: bool) -> Population:
    if is_graded(population):
        return Relay(name=population.name, shape=population.shape, scale=population.scale)
    return LIF(
        name=population.name,
        shape=population.shape,
        membrane_decay=0.0,
        threshold=np.asarray(1 if fixed else 0.5),
        bias=np.asarray(0 if fixed else 0.0),
    )


def _one_to_one(source: str, offset: int, target: str, n: int, graded: bool, fixed: bool) -> Sparse:
    """Weight 1; in fixed point the even weight 2, halved again where the number itself matters."""
    index = np.arange(n)
    return Sparse(
        source=source,
        target=target,
        rows=index,
        columns=index + offset,
        weight=np.full(n, 2 if fixed else 1.0),
        exponent=-1 if fixed and graded else 0,
    )
