"""What SANA-FE's Loihi 1 can run, and the form of a graph that it takes."""

from __future__ import annotations

import numpy as np

from hardware.errors import BackendError
from hardware.ir.fan_out import count_synapses
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import Input, Population, is_graded
from hardware.passes.register_delays import register_delays

LONGEST_DELAY = 6  # of a synapse, in steps; longer ones become shift registers
MOST_SYNAPSES = 20_000_000  # about 0.9 kB each: 18 GB, minutes to build


def legalise(graph: SpikeGraph) -> SpikeGraph:
    """A prepared graph in fixed point as one for SANA-FE: binary spikes, whole weights, delays of 1 to 6.

    Raises:
        BackendError: what it cannot run, by name, and what to do.
        GraphError: a loop with a delay above 6.
    """
    if graph.arithmetic != "fixed":
        raise BackendError(
            "SANA-FE's Loihi 1 computes with integers; use arithmetic='fixed' (--arithmetic fixed)"
        )
    if not graph.is_balanced:
        raise BackendError("SANA-FE needs balanced delays; run the pass balance_delays first")
    for population in graph.populations.values():
        if is_graded(population):
            raise BackendError(
                f"population '{population.name}' sends numbers, and SANA-FE's Loihi 1 has binary "
                f"spikes only; {_way_out(population)}"
            )
    for synapse in graph.synapses:
        if synapse.exponent < 0 and (np.asarray(synapse.weight) % 2**-synapse.exponent).any():
            raise BackendError(
                f"synapse '{synapse.source}' -> '{synapse.target}': with exponent {synapse.exponent} "
                f"its sums are floored, which SANA-FE cannot do; quantise the float graph (--fixed), "
                f"which never floors"
            )
    legal = register_delays(graph, longest=LONGEST_DELAY)
    synapses = count_synapses(legal)
    if synapses > MOST_SYNAPSES:
        raise BackendError(
            f"the graph has {synapses:,} synapses, and SANA-FE takes about 0.9 kB for each; at most "
            f"{MOST_SYNAPSES:,} are tried: use a smaller model"
        )
    return legal


def _way_out(population: Population) -> str:
    if isinstance(population, Input):
        return "train on binary images (--data digits-binary) and lower with --input binary"
    if population.role == "score":
        return "turn scores into rows of integers (--scores rows, or the pass scores_to_rows)"
    return "lower with --residual unrolled"
