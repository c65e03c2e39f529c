"""Give each forward synapse the delay that makes all paths into a population equally long."""

from __future__ import annotations

from dataclasses import replace

from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import Input


def balance_delays(graph: SpikeGraph) -> SpikeGraph:
    """delay = depth(target) - depth(source); loops and constant inputs keep theirs.

    Afterwards every population handles step tau of sample s at hardware step s T + tau + depth, so
    samples stream through back to back.
    """
    synapses = []
    for synapse in graph.synapses:
        source = graph.populations[synapse.source]
        constant = isinstance(source, Input) and source.kind == "constant"
        if synapse.source != synapse.target and not constant:
            delay = graph.depth[synapse.target] - graph.depth[synapse.source]
            synapse = replace(synapse, delay=delay)
        synapses.append(synapse)
    return graph.with_(synapses=synapses)
