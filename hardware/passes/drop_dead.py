"""Remove populations from which no readout can be reached."""

from __future__ import annotations

from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import Readout


def drop_dead(graph: SpikeGraph) -> SpikeGraph:
    """Keep what influences a readout (and the data input, which always stays)."""
    alive = {p.name for p in graph.of_kind(Readout)}
    for name in reversed(graph.order):
        if any(s.target in alive for s in graph.outgoing(name)):
            alive.add(name)
    alive.add(graph.data_input.name)
    return graph.with_(
        populations=[p for p in graph.populations.values() if p.name in alive],
        synapses=[s for s in graph.synapses if s.source in alive and s.target in alive],
    )
