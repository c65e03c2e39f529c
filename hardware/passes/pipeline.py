"""Which passes run before what, in order."""

from __future__ import annotations

from hardware.errors import GraphError
from hardware.ir.graph import Arithmetic, SpikeGraph
from hardware.passes.balance_delays import balance_delays
from hardware.passes.bounds import check_bounds
from hardware.passes.quantise import quantise
from hardware.passes.register_delays import register_delays


def prepare(graph: SpikeGraph, arithmetic: Arithmetic | None = None) -> SpikeGraph:
    """The graph that is executed and counted: balanced, and quantised if fixed point is asked for.

    Args:
        arithmetic: "float" or "fixed"; the graph's own by default.

    Raises:
        GraphError: an unknown arithmetic, "float" asked of a graph in fixed point, or a graph in
            fixed point in which a population could leave Loihi's range.
    """
    if arithmetic not in (None, "float", "fixed"):
        raise GraphError(f"arithmetic {arithmetic!r} is unknown; use 'float' or 'fixed'")
    if arithmetic == "float" and graph.arithmetic == "fixed":
        raise GraphError(
            "arithmetic='float' asked of a fixed-point graph, whose real weights are gone; "
            "use the float graph it was made from"
        )
    if not graph.is_balanced:
        graph = balance_delays(graph)
    if arithmetic == "fixed" and graph.arithmetic == "float":
        graph = quantise(graph)
    if graph.arithmetic == "fixed":
        check_bounds(graph)
    return graph


def legalise_for_stock_lava(graph: SpikeGraph) -> SpikeGraph:
    """A prepared graph for Lava's stock processes, whose synapses take exactly one step."""
    return register_delays(graph)
