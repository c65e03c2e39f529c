"""In which floating-point numbers an integer network can be summed without rounding."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hardware.ir.arithmetic import MAX_V
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import LIF, Input, Population, Relay, is_graded
from hardware.ir.synapses import AnySynapse, Conv2d, Dense

EXACT_FLOAT32 = 2**24  # whole numbers up to here; in float64 up to 2^53


def largest_inputs(graph: SpikeGraph) -> dict[str, float]:
    """The largest magnitude that synapses can add up to in each population of an integer graph."""
    sent: dict[str, float] = {}
    totals: dict[str, float] = {}
    for name in graph.order:
        population = graph.populations[name]
        total = 0.0
        for synapse in graph.incoming(name):
            message = (
                largest_message(population) if synapse.source == name else sent[synapse.source]
            )
            total += largest_row_sum(synapse) * message * 2.0 ** max(synapse.exponent, 0)
        totals[name] = total
        sent[name] = (
            min(total, MAX_V) if isinstance(population, Relay) else largest_message(population)
        )
    return totals


def number_formats(
    graph: SpikeGraph, inputs: Mapping[str, float] | None = None
) -> dict[str, np.dtype]:
    """In which numbers each population's input can be summed without an error.

    float64 for float graphs; for whole numbers float32 where no sum can reach 2^24.

    Args:
        inputs: `largest_inputs(graph)`, where it is known.
    """
    if graph.arithmetic == "float":
        return dict.fromkeys(graph.populations, np.dtype(np.float64))
    totals = largest_inputs(graph) if inputs is None else inputs
    return {
        name: np.dtype(
            np.float32
            if total < EXACT_FLOAT32 and _holds_membranes(graph.populations[name])
            else np.float64
        )
        for name, total in totals.items()
    }


def _holds_membranes(population: Population) -> bool:
    """Whether float32 holds decayed membranes: by a power of two; the rule clips at 2^23."""
    return not isinstance(population, LIF) or np.frexp(population.membrane_decay)[0] in (0.0, 0.5)


def largest_message(population: Population) -> float:
    """Largest magnitude of what a population of a fixed-point graph sends."""
    if isinstance(population, Input) and population.kind == "graded":
        return float(2 ** (population.bits - 1) - 1)
    return float(MAX_V) if is_graded(population) else 1.0


def largest_row_sum(synapse: AnySynapse) -> float:
    """Largest sum of |weight| onto one neuron of the target (an upper bound at the edges of maps)."""
    weight = np.abs(synapse.weight.astype(np.float64))
    if isinstance(synapse, Dense):
        return float(weight.sum(axis=1).max(initial=0.0))
    if isinstance(synapse, Conv2d):
        return float(weight.sum(axis=(1, 2, 3)).max(initial=0.0))
    if not len(weight):
        return 0.0
    return float(np.bincount(synapse.rows, weights=weight).max(initial=0.0))
