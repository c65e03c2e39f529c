"""The currents that messages cause in a population: what every interpreter of a graph computes alike."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from hardware.ir.arithmetic import accumulation_limit, check_range
from hardware.ir.graph import SpikeGraph
from hardware.ir.neurons import Neurons
from hardware.ir.nodes import LIF
from hardware.ir.number_formats import largest_inputs, number_formats
from hardware.ir.operators import Operator, make_operator
from hardware.ir.synapses import AnySynapse


class Currents:
    """Delivers messages; an operator is made when its synapse is first used."""

    def __init__(self, graph: SpikeGraph) -> None:
        self.graph = graph
        self.fixed = graph.arithmetic == "fixed"
        self._largest = largest_inputs(graph) if self.fixed else {}
        self.dtypes = number_formats(graph, self._largest)
        self._operators: dict[int, Operator] = {}

    @cached_property
    def neurons(self) -> dict[str, Neurons]:
        """The neurons of each LIF population."""
        return {
            name: Neurons(
                population, self.dtypes[name], fixed=self.fixed, reach=self._largest.get(name, 0.0)
            )
            for name, population in self.graph.populations.items()
            if isinstance(population, LIF)
        }

    def check(self, name: str, accumulated: np.ndarray) -> None:
        """BackendError if an integer input is one that the target would wrap.

        Nothing is looked at where the weights already rule it out.
        """
        population = self.graph.populations[name]
        if self.fixed and self._largest[name] > accumulation_limit(population):
            check_range(population, accumulated)

    def deliver(self, synapse: AnySynapse, sent: np.ndarray) -> np.ndarray:
        """(rows, *source shape) messages -> (rows, n_target) currents, in an array of its own."""
        operator = self._operators.get(id(synapse))
        if operator is None:
            operator = make_operator(self.graph, synapse, self.dtypes[synapse.target])
            self._operators[id(synapse)] = operator
        return operator(sent)
