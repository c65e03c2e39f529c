"""From a job to the network that runs it."""

from __future__ import annotations

import math

import numpy as np

from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import size as population_size
from hardware.ir.stream import stream_steps
from hardware.jobs.folder import JobFolder
from hardware.lava.fused import FusedSegment, Task, message_dtype, message_shape
from hardware.lava.network import Network, NetworkSize, StockBuilder
from hardware.lava.segments import cut_into_segments
from hardware.lava.settings import Settings
from hardware.lava.subnetwork import subnetwork_size
from hardware.lava.tracks import Track

AT_ONCE = 16  # hardware steps per message: more gain little and fill the pipeline of segments later
MOST_NUMBERS = 2**25  # messages of all neurons that are computed at once: bounds the memory


def plan_network(
    job: JobFolder,
    graph: SpikeGraph,
    inputs: np.ndarray,
    tracks: dict[str, Track],
    settings: Settings,
) -> Network:
    """Create and connect the processes for samples that stream back to back.

    Args:
        graph: balanced; for a "stock" network legalised too.
        inputs: (S, T or 1, *shape), checked by `check_inputs`.
        tracks: what to record and into which files, by population (no inputs).

    Raises:
        BackendError: for a delay above 1, or a convolution that no stock process can compute.
    """
    if settings.network == "stock":
        return _stock_network(job, graph, inputs, tracks, settings)
    segments = cut_into_segments(graph, settings.segments)
    steps = stream_steps(graph, len(inputs))
    at_once = 1 if settings.network == "nested" else min(settings.at_once or _at_once(graph), steps)
    task = Task(
        graph=graph,
        inputs=inputs,
        steps=steps,
        at_once=at_once,
        conv_as=settings.conv_as,
        tracks=tracks,
        folder=str(job.path),
    )
    np.save(job.progress, np.zeros(len(segments), np.int64), allow_pickle=False)
    processes = [
        FusedSegment(task=task, segment=segment, index=index)
        for index, segment in enumerate(segments)
    ]
    maker = {name: process for process in processes for name in process.segment.names}
    message_bytes = connections = 0
    for process in processes:
        for name in process.segment.sources:
            maker[name].output_port(name).connect(process.input_port(name))
            itemsize = np.dtype(message_dtype(graph, name)).itemsize
            message_bytes += itemsize * math.prod(message_shape(task, name))
            connections += 1
    size = NetworkSize(
        processes=len(processes), connections=connections, message_bytes=message_bytes
    )
    if settings.network == "nested":
        size = subnetwork_size(processes)
    return Network(root=processes[0], runs=-(-steps // at_once), steps=steps, size=size)


def _at_once(graph: SpikeGraph) -> int:
    neurons = sum(population_size(p) for p in graph.populations.values())
    return max(1, min(AT_ONCE, MOST_NUMBERS // neurons))


def _stock_network(
    job: JobFolder,
    graph: SpikeGraph,
    inputs: np.ndarray,
    tracks: dict[str, Track],
    settings: Settings,
) -> Network:
    np.save(job.progress, np.zeros(1, np.int64), allow_pickle=False)
    builder = StockBuilder(graph, whole=graph, inputs=inputs, conv_as=settings.conv_as)
    builder.build(outside={})
    recorder = builder.record(tracks, progress_path=job.progress, index=0)
    return Network(root=recorder, runs=builder.steps, steps=builder.steps, size=builder.size)
