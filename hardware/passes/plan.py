"""How a float graph becomes integers: the scales and exponents, apart from the weights they round.

The same plan turns other weights of the same graph into integers: that is how a network is trained on
the grid it will run on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from hardware.ir.arithmetic import DECAY_UNITY
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import LIF, WHOLE_ROLES, Input, Population, Readout, is_graded
from hardware.ir.synapses import AnySynapse
from hardware.passes.bias import check_logic, split_bias
from hardware.passes.grid import WeightGrid, to_integers


@dataclass(frozen=True, kw_only=True)
class QuantisationPlan:
    """Scales and exponents of one graph.

    Args:
        weight_bits: of the weights of synapses that do not only count (those keep 8).
        scales: integer units per 1.0, by population.
        exponents: one per synapse, in the graph's order.
    """

    weight_bits: int
    scales: dict[str, float]
    exponents: tuple[int, ...]

    def grid(self, graph: SpikeGraph, synapse: AnySynapse) -> WeightGrid:
        """The grid of a synapse's weights."""
        return weight_grid(graph, synapse, self.weight_bits)

    def ratio(self, graph: SpikeGraph, synapse: AnySynapse) -> float:
        """Integer units of a weight per 1.0."""
        graded = is_graded(graph.populations[synapse.source])
        source = self.scales[synapse.source] if graded else 1.0
        return self.scales[synapse.target] / source


def weight_grid(graph: SpikeGraph, synapse: AnySynapse, weight_bits: int) -> WeightGrid:
    """Populations that compute with 0 and 1 have small whole weights, of 8 bits whatever others have."""
    whole = graph.populations[synapse.target].role in WHOLE_ROLES
    return WeightGrid(8 if whole else weight_bits)


def apply_plan(graph: SpikeGraph, plan: QuantisationPlan) -> SpikeGraph:
    """The fixed-point graph; whether its sums stay in range is for `check_bounds` to say.

    Raises:
        GraphError: a population that computes with 0 and 1, or a bias, cannot be represented.
    """
    synapses: list[AnySynapse] = []
    for synapse, exponent in zip(graph.synapses, plan.exponents, strict=True):
        wanted = synapse.weight * plan.ratio(graph, synapse)
        mantissa = plan.grid(graph, synapse).mantissa(wanted, exponent)
        synapses.append(replace(synapse, weight=mantissa, exponent=exponent))
    populations: list[Population] = []
    coarse: list[Population] = []
    constant = _constant_name(graph)
    for name, population in graph.populations.items():
        scale = plan.scales[name]
        if isinstance(population, LIF):
            check_logic(population, scale)
            bias, extra = split_bias(population, scale, constant)
            threshold = to_integers(population.threshold * scale)
            decay = round(population.membrane_decay * DECAY_UNITY) / DECAY_UNITY
            population = replace(
                population, membrane_decay=decay, threshold=threshold, bias=bias, scale=scale
            )
            if extra is not None:
                synapses.append(extra)
                if constant not in graph.populations:
                    coarse = [Input(name=constant, shape=(1,), kind="constant")]
        elif isinstance(population, Readout):
            bias = to_integers(population.bias * scale)
            population = replace(population, bias=bias, scale=scale)
        else:
            population = replace(population, scale=scale)
        populations.append(population)
    return graph.with_(populations=coarse + populations, synapses=synapses, arithmetic="fixed")


def _constant_name(graph: SpikeGraph) -> str:
    inputs = [p for p in graph.of_kind(Input) if isinstance(p, Input) and p.kind == "constant"]
    return inputs[0].name if inputs else "constant"
