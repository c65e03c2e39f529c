"""The currents that messages cause in a population: what every interpreter of a graph computes alike."""

from __future__ import annotations

import numpy as np

from hardware.ir.graph import SpikeGraph
from hardware.ir.number_formats import number_formats
from hardware.ir.operators import Operator, make_operator
from hardware.ir.synapses import AnySynapse


class Currents:
    """Delivers messages; an operator is made when its synapse is first used."""

    def __init__(self, graph: SpikeGraph) -> None:
        self.graph = graph
        self.fixed = graph.arithmetic == "fixed"
        self.dtypes = number_formats(graph)
        self._operators: dict[int, Operator] = {}

    def deliver(self, synapse: AnySynapse, sent: np.ndarray) -> np.ndarray:
        """(rows, *source shape) messages -> (rows, n_target) currents, in an array of its own."""
        operator = self._operators.get(id(synapse))
        if operator is None:
            operator = make_operator(self.graph, synapse, self.dtypes[synapse.target])
            self._operators[id(synapse)] = operator
        return operator(sent)
