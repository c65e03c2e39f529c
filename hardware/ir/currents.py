"""The currents that messages cause in a population: what every interpreter of a graph computes alike."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from hardware.ir.arithmetic import shift
from hardware.ir.graph import SpikeGraph
from hardware.ir.operators import Operator, exact_dtype, largest_message, make_operator
from hardware.ir.synapses import AnySynapse


class Currents:
    """Delivers messages; an operator is made when its synapse is first used.

    Args:
        names: the populations that receive; all by default.
    """

    def __init__(self, graph: SpikeGraph, names: Iterable[str] | None = None) -> None:
        self.graph = graph
        self.fixed = graph.arithmetic == "fixed"
        self.dtypes = _number_formats(graph, graph.populations if names is None else names)
        self._operators: dict[int, Operator] = {}

    def deliver(self, synapse: AnySynapse, sent: np.ndarray) -> np.ndarray:
        """(rows, *source shape) messages -> (rows, n_target) currents, in an array of its own."""
        operator = self._operators.get(id(synapse))
        dtype = self.dtypes[synapse.target]
        if operator is None:
            source = self.graph.populations[synapse.source].shape
            target = self.graph.populations[synapse.target].shape
            operator = make_operator(synapse, source, target, dtype)
            self._operators[id(synapse)] = operator
        current = operator(sent)
        return shift(current, synapse.exponent) if self.fixed else current


def _number_formats(graph: SpikeGraph, names: Iterable[str]) -> dict[str, np.dtype]:
    """In which numbers each population's input is summed: float64, or where it is exact float32."""
    if graph.arithmetic == "float":
        return dict.fromkeys(names, np.dtype(np.float64))
    messages = {name: largest_message(p) for name, p in graph.populations.items()}
    return {name: exact_dtype(graph, name, graph.incoming(name), messages) for name in names}
