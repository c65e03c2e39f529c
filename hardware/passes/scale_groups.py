"""Which populations must share one integer scale."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import LIF, Input, Relay


@dataclass(frozen=True)
class ScaleGroup:
    """Populations that share one scale, in topological order."""

    names: tuple[str, ...]


def scale_groups(graph: SpikeGraph) -> list[ScaleGroup]:
    """Populations of one scale group, or joined by graded synapses of weight +1 or -1."""
    leader = {name: name for name in graph.order if not isinstance(graph.populations[name], Input)}

    def find(name: str) -> str:
        while leader[name] != name:
            leader[name] = leader[leader[name]]
            name = leader[name]
        return name

    named: dict[str, str] = {}
    for name in leader:
        population = graph.populations[name]
        if isinstance(population, (LIF, Relay)) and population.scale_group:
            first = named.setdefault(population.scale_group, name)
            leader[find(name)] = find(first)
    for synapse in graph.synapses:
        relayed = isinstance(graph.populations[synapse.source], Relay)
        if relayed and np.all(np.abs(synapse.weight[synapse.weight != 0]) == 1.0):
            leader[find(synapse.target)] = find(synapse.source)
    members: dict[str, list[str]] = {}
    for name in leader:
        members.setdefault(find(name), []).append(name)
    return [ScaleGroup(tuple(names)) for names in members.values()]
