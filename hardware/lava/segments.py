"""Cut a graph into segments that follow each other, one for each fused process.

Populations are taken in the order of their depth, in which every source stands before its targets, and
the sequence is cut into pieces of about equal work. So messages go from earlier segments to later ones
only, whatever the graph is, and no cut needs to know what a block is; of cuts that balance the work
almost as well the one with the fewest messages is taken, which is between the blocks of a transformer.

Inputs belong to no segment: what they send is known before the run, so each segment that hears one
makes its messages by itself.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import pairwise

from hardware.errors import BackendError
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import Input, size
from hardware.ir.stepper import outside_sources
from hardware.ir.synapses import AnySynapse, Conv2d

#: Of a neuron's update and of calling a synapse's operator, in multiplications of a matrix product
#: (measured: 10 ns and 10 us where a product takes 0.25 ns each).
NEURON_WORK, CALL_WORK = 40, 40_000
SLACK = 0.2  # how much longer than the best cut's the longest segment may take, to save messages


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Populations that one process computes.

    Attributes:
        names: in the order of computation, no inputs.
        sources: populations of earlier segments that it hears.
        inputs: inputs that it hears.
        sends: its populations that later segments hear.
    """

    names: tuple[str, ...]
    sources: tuple[str, ...]
    inputs: tuple[str, ...]
    sends: tuple[str, ...]

    @property
    def title(self) -> str:
        """The first and the last population, for the names of processes."""
        return self.names[0] if len(self.names) == 1 else f"{self.names[0]} to {self.names[-1]}"


def cut_into_segments(graph: SpikeGraph, count: int | None = None) -> tuple[Segment, ...]:
    """`count` segments, one per core that this process may use by default; fewer where there are fewer
    populations, or where the segments would not hang together (Lava reaches processes by connections).

    Raises:
        BackendError: `count` is no positive integer.
    """
    if count is None:
        count = len(os.sched_getaffinity(0))
    if type(count) is not int or count < 1:
        raise BackendError(f"segments={count!r} must be a positive whole number, or None")
    rank = {name: index for index, name in enumerate(graph.order)}
    names = [n for n in graph.order if not isinstance(graph.populations[n], Input)]
    names.sort(key=lambda name: (graph.depth[name], rank[name]))
    for pieces in range(min(count, len(names)), 1, -1):
        segments = _segments(graph, names, _best_cuts(graph, names, pieces))
        if _hang_together(segments):
            return segments
    return _segments(graph, names, ())


def work_of(graph: SpikeGraph, name: str) -> int:
    """Cost of one hardware step of a population, in multiplications; spikes and silence are not known."""
    neurons = size(graph.populations[name])
    synapses = graph.incoming(name)
    return NEURON_WORK * neurons + sum(CALL_WORK + _multiplications(s, neurons) for s in synapses)


def _multiplications(synapse: AnySynapse, neurons: int) -> int:
    if isinstance(synapse, Conv2d):
        return neurons * synapse.weight[0].size
    return synapse.weight.size


def _segments(graph: SpikeGraph, names: list[str], cuts: tuple[int, ...]) -> tuple[Segment, ...]:
    segments = []
    for begin, end in pairwise((0, *cuts, len(names))):
        inside = set(names[begin:end])
        heard = outside_sources(graph, inside)
        segments.append(
            Segment(
                names=tuple(names[begin:end]),
                sources=tuple(n for n in heard if not isinstance(graph.populations[n], Input)),
                inputs=tuple(n for n in heard if isinstance(graph.populations[n], Input)),
                sends=tuple(
                    n for n in names[begin:end] if {s.target for s in graph.outgoing(n)} - inside
                ),
            )
        )
    return tuple(segments)


def _best_cuts(graph: SpikeGraph, names: list[str], pieces: int) -> tuple[int, ...]:
    """Of the cuts whose longest segment is almost as short as possible the one with least traffic."""
    sums = [0]
    for name in names:
        sums.append(sums[-1] + work_of(graph, name))
    shortest = _shortest(sums, pieces)
    limit = (1 + SLACK) * shortest
    traffic = _traffic(graph, names)
    # best[k][j]: least traffic of names[:j] in k segments within the limit, and where the last begins
    best: list[dict[int, tuple[int, int]]] = [{0: (0, 0)}]
    for _ in range(pieces):
        reached: dict[int, tuple[int, int]] = {}
        for end in range(1, len(names) + 1):
            found = [
                (cost + traffic[begin], begin)
                for begin, (cost, _) in best[-1].items()
                if begin < end and sums[end] - sums[begin] <= limit
            ]
            if found:
                reached[end] = min(found)
        best.append(reached)
    cuts, end = [], len(names)
    for level in reversed(best[1:]):
        end = level[end][1]
        cuts.append(end)
    return tuple(reversed(cuts[:-1]))


def _shortest(sums: list[int], pieces: int) -> int:
    """The least work that the longest of `pieces` consecutive segments can have."""
    least, most = max(b - a for a, b in pairwise(sums)), sums[-1]
    while least < most:
        limit = (least + most) // 2
        needed, begin = 1, 0
        for end in range(1, len(sums)):
            if sums[end] - sums[begin] > limit:
                needed, begin = needed + 1, end - 1
        least, most = (least, limit) if needed <= pieces else (limit + 1, most)
    return least


def _traffic(graph: SpikeGraph, names: list[str]) -> list[int]:
    """For a cut before each place: how many neurons before it are heard behind it."""
    place = {name: index for index, name in enumerate(names)}
    crossing = [0] * len(names)
    for name in names:
        last = max((place[s.target] for s in graph.outgoing(name)), default=0)
        for index in range(place[name] + 1, last + 1):
            crossing[index] += size(graph.populations[name])
    return crossing


def _hang_together(segments: tuple[Segment, ...]) -> bool:
    """Whether connections reach all segments from the first one, whatever their direction."""
    maker = {name: index for index, s in enumerate(segments) for name in s.names}
    links = {frozenset((i, maker[n])) for i, s in enumerate(segments) for n in s.sources}
    reached = {0}
    while grown := {i for link in links if link & reached for i in link} - reached:
        reached |= grown
    return len(reached) == len(segments)
