"""The stock network on a Loihi 2 chip: what it needs, what the chip cannot take, and the run.

**Nothing here has been tried on a chip.** The package that drives one is Intel's and is given to members of
its research community alone. What is tested: that the network for the chip, run by Lava's bit-accurate CPU
models, sends the reference's spikes, and, against a stand-in for the package, which calls it gets. What
is not: that Intel's compiler accepts and places the network, that its adapters take no step of their
own, that its microcode computes what the bit-accurate models compute, speed and energy.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from hardware.errors import BackendError
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import LIF, is_graded
from hardware.ir.reference import Progress
from hardware.lava.compat import require_lava
from hardware.lava.run import run_lava
from hardware.lava.settings import Settings
from hardware.loihi.fit import estimate_fit
from hardware.passes.pipeline import legalise_for_stock_lava
from hardware.passes.to_sparse import to_sparse
from hardware.trace import SpikeTrace

ACCESS = "https://intel-ncl.atlassian.net/wiki/spaces/INRC"
INTELS = "lava.utils.loihi2_profiler"  # what lava.utils.loihi.is_installed looks for
LOIHI_2 = ("N3B2", "N3B3", "N3C1", "N3D1")


def run_loihi(
    graph: SpikeGraph,
    inputs: np.ndarray,
    *,
    record: Iterable[str] | None = None,
    progress: Progress | None = None,
    time_limit: float | None = None,
) -> SpikeTrace:
    """Run a balanced fixed-point graph on a board; arguments and result as `run_lava`.

    `meta` also holds `cores` and `chips` by our estimate and `warnings`: what may keep the network off one
    chip. It is not refused for that, because the estimate may be wrong either way; Intel's compiler decides.

    Each recorded population takes an adapter: record as few as you can.

    Raises:
        BackendError: Intel's package or a board is missing, or the graph holds what a chip cannot take.
    """
    check_chip(graph)
    require_loihi()
    fit = estimate_fit(_as_laid_out(graph))
    trace = run_lava(
        graph,
        inputs,
        record=record,
        progress=progress,
        time_limit=time_limit,
        settings=Settings(network="chip", conv_as="sparse", schedule="stepwise"),
    )
    facts = {"cores": fit.cores, "chips": fit.chips, "warnings": fit.warnings}
    return replace(trace, meta=trace.meta | facts)


def _as_laid_out(graph: SpikeGraph) -> SpikeGraph:
    """The graph with the shift registers and the listed synapses that the chip gets."""
    legal = legalise_for_stock_lava(graph)
    return legal.with_(synapses=[to_sparse(legal, s) for s in legal.synapses])


def require_loihi() -> None:
    """BackendError unless lava-nc and Intel's package for Loihi are there; says how one gets it."""
    require_lava()
    try:
        found = importlib.util.find_spec(INTELS) is not None
    except ModuleNotFoundError:
        found = False
    if not found:
        raise BackendError(
            f"backend 'loihi' needs Intel's package lava-loihi ({INTELS} is not installed), which "
            f"members of the Intel Neuromorphic Research Community get ({ACCESS}); backends "
            f"'reference', 'lava' and 'lava-stock' run without it"
        )


def check_chip(graph: SpikeGraph) -> None:
    """BackendError for what Loihi 2's stock processes cannot take, by the name of what holds it."""
    if graph.arithmetic != "fixed":
        raise BackendError(
            "backend 'loihi' computes with integers; use arithmetic='fixed' (--arithmetic fixed)"
        )
    generation = os.environ.get("LOIHI_GEN", "N3B3")
    if generation not in LOIHI_2:
        graded = [p.name for p in graph.populations.values() if is_graded(p)]
        raise BackendError(
            f"LOIHI_GEN={generation} is no Loihi 2 ({', '.join(LOIHI_2)}), and others cannot send "
            f"the numbers of {len(graded)} populations ('{graded[0] if graded else '-'}' first)"
        )
    for population in graph.of_kind(LIF):
        assert isinstance(population, LIF)
        thresholds = np.unique(population.threshold)
        if len(thresholds) > 1:
            raise BackendError(
                f"population '{population.name}' has {len(thresholds)} different thresholds; a LIF "
                f"process on the chip has one: split the population"
            )
