"""Which synapses only K of E experts can make carry spikes: what the gates of the graph show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import GATE_ROLES, LIF
from hardware.ir.synapses import AnySynapse, Conv2d, Expert, Sparse


class Gating:
    """Of each population of a graph: the gates that keep it silent while an expert is not chosen."""

    def __init__(self, graph: SpikeGraph) -> None:
        self.graph = graph
        self._gates: dict[tuple[str, Expert], str | None] = {}
        for name in graph.order:  # sources first: a chain may be thousands of populations long
            for expert in {s.expert for s in graph.outgoing(name)} - {None}:
                assert expert is not None
                self._gates[name, expert] = self._silencing_gate(name, expert)

    def trusted_marks(self, incoming: Sequence[AnySynapse]) -> list[AnySynapse]:
        """The synapses, without the `expert` mark where the graph does not show that it is true.

        It is true of experts behind gates of their own, all of one population, which keeps the limit,
        token by token (a sum over tokens may hear another expert from each).
        """
        gates = [s.expert and self._gate_before(s, s.expert) for s in incoming]
        found: dict[str, set[str]] = {}
        for synapse, gate in zip(incoming, gates, strict=True):
            if synapse.expert is not None and gate is not None:
                found.setdefault(synapse.expert[0], set()).add(gate)
        trusted = []
        for synapse, gate in zip(incoming, gates, strict=True):
            if synapse.expert is not None:
                router = synapse.expert[0]
                one = gate if gate is not None and len(found[router]) == 1 else None
                if one is None or not _keeps_limit(self.graph, one, router):
                    synapse = replace(synapse, expert=None)
            trusted.append(synapse)
        return trusted

    def _gate_before(self, synapse: AnySynapse, expert: Expert) -> str | None:
        """The gates that keep the source silent while that of the expert is closed; None if none do."""
        source = self.graph.populations[synapse.source]
        if source.role in GATE_ROLES and isinstance(source, LIF):
            gate = source.name if _reads_only(self.graph, synapse, expert[1]) else None
        else:
            gate = self._gates.get((source.name, expert))
        if gate is None or _tokens(self.graph, gate) == 1 or _is_token_wise(self.graph, synapse):
            return gate
        return None

    def _silencing_gate(self, name: str, expert: Expert) -> str | None:
        source = self.graph.populations[name]
        if not isinstance(source, LIF) or source.role in GATE_ROLES or np.any(source.bias > 0):
            return None
        incoming = self.graph.incoming(name)
        if any(s.source == name for s in incoming):  # its own spikes may keep it going
            return None
        if source.role == "and":
            gates = [s for s in incoming if self.graph.populations[s.source].role in GATE_ROLES]
            own = [g for s in gates if (g := self._gate_before(s, expert)) is not None]
            return own[0] if own and len(incoming) == 2 else None
        before = {self._gate_before(s, expert) if s.expert == expert else None for s in incoming}
        return before.pop() if len(before) == 1 else None


def _keeps_limit(graph: SpikeGraph, gate: str, router: str) -> bool:
    """Whether no more gates of a token can be open than the router's limit.

    Gates of a contest do by their number of winners; every threshold can be passed at once.
    """
    population = graph.populations[gate]
    if population.role == "latch":
        decided = {s.source for s in graph.incoming(gate)} - {gate}
        sources = {s.source for name in decided for s in graph.incoming(name)}
        held = [n for n in sources if graph.populations[n].role in ("gate", "threshold")]
        return bool(held) and all(_keeps_limit(graph, name, router) for name in held)
    return population.role != "threshold" or graph.gate_limits[router] >= population.shape[-1]


def _reads_only(graph: SpikeGraph, synapse: AnySynapse, expert: int) -> bool:
    """Whether a synapse from gates (..., E) uses the gates of one expert alone."""
    columns = np.unique(_connections(graph, synapse)[1])
    return bool(np.all(columns % graph.populations[synapse.source].shape[-1] == expert))


def _tokens(graph: SpikeGraph, name: str) -> int:
    return math.prod(graph.populations[name].shape[:-1])


def _is_token_wise(graph: SpikeGraph, synapse: AnySynapse) -> bool:
    """Whether each neuron of a map reads its own position alone."""
    if isinstance(synapse, Conv2d):
        single = synapse.weight.shape[2:] == (1, 1)
        return single and synapse.stride == (1, 1) and synapse.padding == (0, 0)
    rows, columns = _connections(graph, synapse)
    target, source = (graph.populations[n].shape[-1] for n in (synapse.target, synapse.source))
    return bool(np.all(rows // target == columns // source))


def _connections(graph: SpikeGraph, synapse: AnySynapse) -> tuple[np.ndarray, np.ndarray]:
    """(neurons of the target, neurons of the source) of all weights that are not zero."""
    if isinstance(synapse, Sparse):
        used = synapse.weight != 0
        return synapse.rows[used], synapse.columns[used]
    matrix = graph.matrix(synapse).tocoo()
    return matrix.row, matrix.col
