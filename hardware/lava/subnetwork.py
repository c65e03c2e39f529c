"""The stock network of a segment: the other model of a fused process.

Where Lava 0.10 sets traps:
- Several inner output ports may be joined into one of the process around (a relay is the sum of its
  synapses): the reader's port gets a channel from each and adds up what arrives.
- Sub processes are found among the attributes of the model, by name; one that is only in a list is lost.
- A segment that nothing is recorded of has no recorder, since a process without connections is never told
  to end; its progress counts as complete.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import LIF, Input, Readout, Relay, is_graded, size
from hardware.jobs.folder import JobFolder
from hardware.lava.compat import lava_imports
from hardware.lava.fused import FusedSegment
from hardware.lava.network import NetworkSize, StockBuilder
from hardware.lava.segments import Segment
from hardware.passes.pipeline import legalise_for_stock_lava

with lava_imports():
    from lava.magma.core.decorator import implements
    from lava.magma.core.model.sub.model import AbstractSubProcessModel
    from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol


@implements(proc=FusedSegment, protocol=LoihiProtocol)
class SubNetworkModel(AbstractSubProcessModel):
    """Builds the stock processes of the segment between the ports of the fused process."""

    def __init__(self, proc: FusedSegment) -> None:
        builder = build_subnetwork(proc)
        for place, process in enumerate(builder.processes):
            setattr(self, f"process{place}", process)


def build_subnetwork(process: FusedSegment) -> StockBuilder:
    """The stock processes of a segment, connected to the ports of `process`."""
    task, segment = process.task, process.segment
    part = legalise_for_stock_lava(part_of(task.graph, segment))
    builder = StockBuilder(part, whole=task.legal, inputs=task.inputs, conv_as=task.conv_as)
    builder.build(outside={name: process.input_port(name) for name in segment.sources})
    for name in segment.sends:
        for port in builder.senders[name]:
            builder.connect(port, process.output_port(name))
    progress = JobFolder(task.folder).progress
    tracks = {name: task.tracks[name] for name in segment.names if name in task.tracks}
    if tracks:
        builder.record(tracks, progress_path=progress, index=process.index)
    else:
        np.load(progress, mmap_mode="r+")[process.index] = task.steps
    return builder


def part_of(graph: SpikeGraph, segment: Segment) -> SpikeGraph:
    """The segment as a graph of its own, in which what it hears from other segments is an input."""
    outside = [
        Input(
            name=name,
            shape=population.shape,
            kind="graded" if is_graded(population) else "binary",
            bits=24,
            scale=population.scale,
        )
        for name in segment.sources
        for population in [graph.populations[name]]
    ]
    inside = [graph.populations[name] for name in (*segment.inputs, *segment.names)]
    synapses = [s for name in segment.names for s in graph.incoming(name)]
    return graph.with_(populations=[*outside, *inside], synapses=synapses)


def subnetwork_size(processes: Sequence[FusedSegment]) -> NetworkSize:
    """What all stock networks need together, counted without building them."""
    ends = [_count(process) for process in processes]
    return NetworkSize(
        processes=sum(e.processes for e in ends),
        connections=sum(e.connections for e in ends),
        message_bytes=sum(e.message_bytes for e in ends),
    )


def _count(process: FusedSegment) -> NetworkSize:
    """As `StockBuilder` builds it; a relay sends through each of its synapses."""
    task, segment = process.task, process.segment
    part = legalise_for_stock_lava(part_of(task.graph, segment))
    sends = {
        name: len(part.incoming(name)) if isinstance(population, (Relay, Readout)) else 1
        for name, population in part.populations.items()
    }
    tracks = [name for name in segment.names if name in task.tracks]
    sizes = {name: size(population) for name, population in part.populations.items()}
    read = [(s.source, sends[s.source]) for s in part.synapses]
    read += [(name, sends[name]) for name in tracks]
    read += [(s.target, 1) for s in part.synapses if isinstance(part.populations[s.target], LIF)]
    own = [
        name
        for name, population in part.populations.items()
        if isinstance(population, LIF)
        or (isinstance(population, Input) and part.outgoing(name) and name not in segment.sources)
    ]
    return NetworkSize(
        processes=len(own) + len(part.synapses) + bool(tracks),
        connections=sum(count for _, count in read),
        message_bytes=8 * sum(sizes[name] * count for name, count in read),
    )
