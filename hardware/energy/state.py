"""Neurons whose membrane is not zero when a step begins: they change even if nothing reaches them."""

from __future__ import annotations

import numpy as np

from hardware.ir.arithmetic import lif_step
from hardware.ir.currents import Currents
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import LIF


class CarriedState:
    """Recomputes membranes from recorded messages, with the graph's own arithmetic."""

    def __init__(self, graph: SpikeGraph) -> None:
        self.graph = graph
        self.currents = Currents(graph)

    def of(self, population: LIF, sent: dict[str, np.ndarray]) -> np.ndarray:
        """(S, T, *shape) whether v, what the step before left behind, is not zero.

        v = u (1 - spike) of the step before, before it decays; zero at the first step of a window. A
        neuron with decay 0 keeps it for a step too, since only its next update clears it.

        Args:
            sent: messages (S, T, *shape) of the population and of all its sources; what a loop has in
                flight at the end of a window arrives at its start.
        """
        spikes = sent[population.name]
        current = np.zeros(spikes.shape, self.currents.dtypes[population.name])
        for synapse in self.graph.incoming(population.name):
            messages = sent[synapse.source]
            if synapse.source == synapse.target:
                messages = np.roll(messages, synapse.delay, axis=1)
            rows = messages.reshape(-1, *messages.shape[2:])
            current += self.currents.deliver(synapse, rows).reshape(current.shape)
        carried = np.zeros(spikes.shape, dtype=bool)
        v = np.zeros_like(current[:, 0])
        for step in range(spikes.shape[1]):
            carried[:, step] = v != 0
            u, _, _ = lif_step(population, v, current[:, step], fixed=self.currents.fixed)
            v = u * ~spikes[:, step]
        return carried
