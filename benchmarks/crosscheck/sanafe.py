"""Our `loihi1-fitted` against SANA-FE, which simulates the same network on the same cores.

SANA-FE tells the energy of each core and every message; parts of the network have cores of their own, so
that both sides can be compared part by part and unit by unit. Its run has steps in which the pipeline
fills and empties: images a, b, ... followed by z, less z alone, leave what a, b, ... took. What remains
different are shift registers for delays above 6, one price for all synapses of a core, and membranes that
are cleared a step later. Each is counted on its own, and with all of them nothing may be left.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from hardware.energy import Operation, OperationCounts, count_operations, get_table
from hardware.energy.tables.sanafe import (
    ACCESS_PJ,
    CHANGE_PJ,
    CONVOLUTION_PJ,
    DENSE_PJ,
    EAST_WEST_PJ,
    MESSAGE_PJ,
    NORTH_SOUTH_PJ,
    SPARSE_PJ,
    SPIKE_OUT_PJ,
)
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import LIF
from hardware.ir.stream import stream_messages
from hardware.loihi.layout import CoreLayout
from hardware.sanafe.counts import ChipEvents, events_by_part, part_of_synapse
from hardware.sanafe.detail import Detail
from hardware.sanafe.legal import legalise
from hardware.sanafe.placement import Placement, part_on_chip, place_neurons
from hardware.sanafe.run import run_sanafe
from hardware.simulate import simulate, to_inputs
from hardware.trace import SpikeTrace

TABLE = "loihi1-fitted"
SYNAPSE_PJ = {"dense": DENSE_PJ, "sparse": SPARSE_PJ, "convolution": CONVOLUTION_PJ}
UNITS = ("synapse", "soma", "network")
_SYNAPSE = (
    Operation.ACCUMULATE_DENSE, Operation.ACCUMULATE_SPARSE, Operation.ACCUMULATE_CONVOLUTION,
)  # fmt: skip
_SOMA = (
    Operation.NEURON_UPDATE_ACTIVE, Operation.NEURON_UPDATE_IDLE, Operation.RELAY_UPDATE_ACTIVE,
    Operation.RELAY_UPDATE_IDLE, Operation.STATE_CHANGE, Operation.NEURON_SPIKE,
)  # fmt: skip
_NETWORK = (Operation.CORE_MESSAGE, Operation.HOP_EAST_WEST, Operation.HOP_NORTH_SOUTH)
OPERATIONS = {"synapse": _SYNAPSE, "soma": _SOMA, "network": _NETWORK}

Shares = dict[tuple[str, str], float]  # (part, unit) -> pJ, or a number of "messages" or "hops"


@dataclass(frozen=True, kw_only=True)
class ChipRun:
    """The same images through our reference and through SANA-FE.

    Attributes:
        samples: images that were priced; one more closed the run.
        compared, differing: spikes and integer logits of all of them, and how many differ.
        trace, layout: of our reference, and where SANA-FE's neurons lie.
        ours, theirs: by (part, unit).
        explained: reason -> what it adds to ours to make it theirs.
        events_pj, told_pj: unit -> energy of the whole run, registers, fill and drain included: from events
            that we counted in our own spikes, and as SANA-FE tells it.
        latency_us: (hardware steps,) of SANA-FE's run.
    """

    samples: int
    compared: int
    differing: int
    cores: int
    trace: SpikeTrace
    layout: CoreLayout
    counts: OperationCounts
    ours: Shares
    theirs: Shares
    explained: dict[str, Shares]
    events_pj: dict[str, float]
    told_pj: dict[str, float]
    latency_us: np.ndarray


@dataclass(frozen=True, kw_only=True)
class _Told:
    """One run of SANA-FE, and the events of the same steps as we count them.

    Attributes:
        whole, plain: events with the shift registers, and of the graph before it got them.
    """

    trace: SpikeTrace
    shares: Shares
    detail: Detail
    whole: Shares
    plain: Shares
    clears: Shares


def run_both(graph: SpikeGraph, images: Tensor) -> ChipRun:
    """Simulate a graph of binary spikes in fixed point, and price all images but the last on both sides.

    Raises:
        ValueError: fewer than 2 images.
        HardwareError: SANA-FE is missing or cannot run the graph.
    """
    if len(images) < 2:
        raise ValueError(f"{len(images)} images; give at least 2, of which the last is not priced")
    legal = legalise(graph)
    placement = place_neurons(legal, parts_apart=True)
    layout = placement.layout(graph)
    both, last = (_run(graph, legal, placement, part) for part in (images, images[-1:]))
    compared, differing = compare(graph, simulate(graph, images), both.trace)
    reference = simulate(graph, images[:-1])
    counts = count_operations(graph, reference, layout)
    told = both.trace.meta["energy_pj"]
    assert isinstance(told, dict)
    return ChipRun(
        samples=reference.samples,
        compared=compared,
        differing=differing,
        cores=placement.cores_used,
        trace=reference,
        layout=layout,
        counts=counts,
        ours=price_counts(counts),
        theirs=minus(both.shares, last.shares),
        explained={
            "shift registers": minus(minus(both.whole, both.plain), minus(last.whole, last.plain)),
            "one price per core": reprice(graph, placement, counts),
            "late clears": minus(both.clears, last.clears),
        },
        events_pj={unit: of_unit(both.whole, unit) for unit in UNITS},
        told_pj={unit: float(told[unit]) for unit in UNITS},
        latency_us=both.detail.latency_us,
    )


def _run(graph: SpikeGraph, legal: SpikeGraph, placement: Placement, images: Tensor) -> _Told:
    inputs = to_inputs(graph, images)
    trace = run_sanafe(graph, inputs, in_detail=True)
    detail = trace.meta["detail"]
    assert isinstance(detail, Detail)
    sent = stream_messages(graph, inputs)
    windows = events_by_part(graph, placement, sent, in_windows=True)
    clears = {part: ChipEvents(soma_changes=e.late_clears) for part, e in windows.items()}
    return _Told(
        trace=trace,
        shares=price_detail(legal, placement, detail),
        detail=detail,
        whole=price_events(events_by_part(legal, placement, stream_messages(legal, inputs))),
        plain=price_events(events_by_part(graph, placement, sent)),
        clears=price_events(clears),
    )


def compare(graph: SpikeGraph, ours: SpikeTrace, theirs: SpikeTrace) -> tuple[int, int]:
    """(compared, differing) spikes and logits."""
    compared = differing = 0
    for name in (p.name for p in graph.of_kind(LIF)):
        differing += int(np.count_nonzero(ours.spikes[name] != theirs.spikes[name]))
        compared += ours.spikes[name].size
    differing += int(np.count_nonzero(ours.logits != theirs.logits))
    return compared + ours.logits.size, differing


def price_counts(counts: OperationCounts) -> Shares:
    """What `loihi1-fitted` charges, by part and unit of the chip."""
    prices = {o: cost.of(counts.populations[0]).value for o, cost in get_table(TABLE).costs.items()}
    shares: Shares = {}
    for part, operations in counts.by_part.items():
        for unit, its in OPERATIONS.items():
            shares[part, unit] = sum(prices[o] * operations[o] for o in its)
        shares[part, "messages"] = operations[Operation.CORE_MESSAGE]
        hops = (Operation.HOP_EAST_WEST, Operation.HOP_NORTH_SOUTH)
        shares[part, "hops"] = sum(operations[o] for o in hops)
    return shares


def price_events(parts: Mapping[str, ChipEvents]) -> Shares:
    """Events of a run on the chip, by part and unit."""
    shares: Shares = {}
    for part, e in parts.items():
        shares[part, "synapse"] = sum(SYNAPSE_PJ[k] * n for k, n in e.synapses_reached.items())
        soma = ACCESS_PJ * e.soma_updates + CHANGE_PJ * e.soma_changes
        shares[part, "soma"] = soma + SPIKE_OUT_PJ * e.soma_spikes
        hops = EAST_WEST_PJ * e.hops_east_west + NORTH_SOUTH_PJ * e.hops_north_south
        shares[part, "network"] = MESSAGE_PJ * e.messages + hops
        shares[part, "messages"], shares[part, "hops"] = e.messages, e.hops
    return shares


def price_detail(legal: SpikeGraph, placement: Placement, detail: Detail) -> Shares:
    """What SANA-FE charged: somas as it tells them by core, synapses and network message by message.

    Raises:
        ValueError: its messages do not add up to its energy, or a message reaches synapses of two parts.
    """
    shares: defaultdict[tuple[str, str], float] = defaultdict(float)
    part_of_core = {c: part_on_chip(legal, b.population) for b, c in placement.blocks}
    kind_of_core = {
        core: placement.kinds[block.population]
        for block, core in placement.blocks
        if legal.incoming(block.population)
    }
    for core, part in part_of_core.items():
        shares[part, "soma"] += float(detail.soma_pj[core])
    synapse_pj = np.zeros_like(detail.synapse_pj)
    for name, sent in detail.sent.items():
        part, payer = part_on_chip(legal, name), payers(legal, placement, name)
        hops = sent.messages * (sent.east_west + sent.north_south)
        shares[part, "messages"] += float(sent.messages.sum())
        shares[part, "hops"] += float(hops.sum())
        shares[part, "network"] += float(
            sent.messages
            @ (MESSAGE_PJ + EAST_WEST_PJ * sent.east_west + NORTH_SOUTH_PJ * sent.north_south)
        )
        for neuron, core, reached in zip(
            sent.neuron.tolist(), sent.core.tolist(), sent.synapses.tolist(), strict=True
        ):
            energy = SYNAPSE_PJ[kind_of_core[core]] * reached
            synapse_pj[core] += energy
            shares[payer[neuron, core], "synapse"] += energy
    if not np.allclose(synapse_pj, detail.synapse_pj, rtol=1e-9):
        raise ValueError("SANA-FE's messages do not add up to the synapse energy of its cores")
    return dict(shares)


def payers(legal: SpikeGraph, placement: Placement, name: str) -> dict[tuple[int, int], str]:
    """(source neuron, core) -> the part that pays for the synapses there; ValueError if there are two."""
    found: dict[tuple[int, int], str] = {}
    for synapse in legal.outgoing(name):
        part, matrix = part_of_synapse(legal, synapse), legal.matrix(synapse).tocoo()
        cores = placement.cores[synapse.target][matrix.row]
        for pair in set(zip(matrix.col.tolist(), cores.tolist(), strict=True)):
            if found.setdefault(pair, part) != part:
                raise ValueError(
                    f"population '{name}': neuron {pair[0]} has synapses of {part} and of {found[pair]} on "
                    f"one core, which SANA-FE's messages do not tell apart"
                )
    return found


def reprice(graph: SpikeGraph, placement: Placement, counts: OperationCounts) -> Shares:
    """What synapses cost more where their core charges for those of another kind."""
    shares: Counter[tuple[str, str]] = Counter()
    names = dict(zip(_SYNAPSE, ("dense", "sparse", "convolution"), strict=True))
    for synapse, tally in zip(graph.synapses, counts.synapses, strict=True):
        price = SYNAPSE_PJ[placement.kinds[synapse.target]]
        for operation, kind in names.items():
            more = (price - SYNAPSE_PJ[kind]) * tally.operations.get(operation, 0)
            shares[tally.part, "synapse"] += more  # type: ignore[assignment]
    return dict(shares)


def minus(one: Shares, other: Shares) -> Shares:
    """By part and unit."""
    return {key: one.get(key, 0.0) - other.get(key, 0.0) for key in one | other}


def of_unit(shares: Shares, unit: str) -> float:
    """Of all parts."""
    return sum(value for (_, one), value in shares.items() if one == unit)
