"""Cuts every population into blocks that fit a core, and packs blocks into cores."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from hardware.ir.graph import SpikeGraph
from hardware.loihi.blocks import Block, Grid, whole
from hardware.loihi.chips import Chip
from hardware.loihi.demands import Demand, demand_of
from hardware.loihi.edges import Edges, find_connections, find_edges

#: How many of the cores opened last are tried for a block, before a new one is opened.
OPEN_CORES = 64
#: Rounds of cutting what has too many outgoing axons, each at least into halves.
MOST_ROUNDS = 16


@dataclass(frozen=True)
class Core:
    """Blocks that share a core, by their number in `Partition.blocks`."""

    blocks: tuple[int, ...]
    demand: Demand


@dataclass(frozen=True)
class Partition:
    """A graph cut to fit.

    Attributes:
        grids: by population.
        blocks: of all populations, one population after the other in the graph's topological order.
        edges: between blocks.
        demands: of each block.
        cores: of packed blocks.
        cut_by: population -> the limit that it was cut for; not there if it is whole.
        too_large: population -> the limit that its smallest possible block still exceeds.
    """

    grids: dict[str, Grid]
    blocks: tuple[Block, ...]
    edges: Edges
    demands: tuple[Demand, ...]
    cores: tuple[Core, ...]
    cut_by: dict[str, str] = field(default_factory=dict)
    too_large: dict[str, str] = field(default_factory=dict)


def partition(graph: SpikeGraph, chip: Chip, *, pack: bool = True) -> Partition:
    """Cut and pack a graph.

    Args:
        pack: put blocks of several populations into one core where they fit; without it each block
            has a core of its own, as in the published output of Intel's compiler.
    """
    grids: dict[str, Grid] = {}
    cut_by: dict[str, str] = {}
    too_large: dict[str, str] = {}
    for name in graph.order:
        grid = whole(name, graph.populations[name].shape)
        grids[name] = _cut_to_fit(graph, chip, grid, cut_by, too_large)
    connections = find_connections(graph)
    for _ in range(MOST_ROUNDS):
        blocks = [block for name in grids for block in grids[name]]
        edges = find_edges(graph, chip, grids, connections)
        demands = _with_axons(graph, chip, blocks, edges)
        if not _cut_for_axons(graph, chip, grids, blocks, demands, cut_by, too_large):
            break
    cores = _packed(chip, demands) if pack else _alone(demands)
    return Partition(grids, tuple(blocks), edges, tuple(demands), tuple(cores), cut_by, too_large)


def worst_limit(demand: Demand, chip: Chip) -> tuple[float, str]:
    """(share, limit) of the limit that a demand comes closest to, or exceeds most."""
    return max((share, name) for name, share in demand.use(chip).items())


def _cut_to_fit(
    graph: SpikeGraph,
    chip: Chip,
    grid: Grid,
    cut_by: dict[str, str],
    too_large: dict[str, str],
) -> Grid:
    share, limit = _worst(graph, chip, grid)
    best, least = grid, share
    while share > 1:
        finer = [(*_worst(graph, chip, g), g) for g in _finer(grid, share)]
        if not finer:  # one neuron, and still too large: keep what is not cut in vain
            too_large[grid.population] = limit
            return best
        if limit in ("neurons", "in_axons"):  # positions first: kernels stay whole
            finer = finer[:1]
        cut_by[grid.population] = limit
        share, limit, grid = min(reversed(finer), key=lambda one: one[0])
        if share < least:
            best, least = grid, share
    return grid


def _worst(graph: SpikeGraph, chip: Chip, grid: Grid) -> tuple[float, str]:
    return max(worst_limit(demand_of(graph, chip, block), chip) for block in grid)


def _finer(grid: Grid, share: float) -> Iterator[Grid]:
    """Grids with smaller blocks: half the positions (of maps), then fewer channels."""
    widths = grid.widths
    if len(widths) == 3:
        for axis in (0, 1):
            if widths[axis] > 1:
                half = 1 << ((widths[axis] - 1).bit_length() - 1)  # the power of two below
                yield replace(grid, widths=(*widths[:axis], half, *widths[axis + 1 :]))
                break
    axes = (2,) if len(widths) == 3 else range(len(widths))
    for axis in axes:
        if widths[axis] > 1:
            pieces = grid.pieces[axis] * math.ceil(share)
            width = min(widths[axis] - 1, math.ceil(grid.shape[axis] / pieces))
            yield replace(grid, widths=(*widths[:axis], width, *widths[axis + 1 :]))
            break


def _with_axons(graph: SpikeGraph, chip: Chip, blocks: list[Block], edges: Edges) -> list[Demand]:
    """Demands with outgoing axons; where axons are shared, incoming ones are counted by source core."""
    out_axons = edges.out_axons(len(blocks))
    shared = edges.shared_in_axons(len(blocks))
    return [
        replace(demand, out_axons=out, in_axons=demand.in_axons + more)
        for demand, out, more in zip(
            (demand_of(graph, chip, block) for block in blocks), out_axons, shared, strict=True
        )
    ]


def _cut_for_axons(
    graph: SpikeGraph,
    chip: Chip,
    grids: dict[str, Grid],
    blocks: list[Block],
    demands: list[Demand],
    cut_by: dict[str, str],
    too_large: dict[str, str],
) -> bool:
    """Cut populations with a block that has too many axons; whether there was one."""
    worst: dict[str, tuple[float, str]] = {}
    for block, demand in zip(blocks, demands, strict=True):
        found = worst_limit(demand, chip)
        worst[block.population] = max(found, worst.get(block.population, (0.0, "")))
    again = False
    for name, (share, limit) in worst.items():
        if share <= 1 or name in too_large:
            continue
        finer = next(_finer(grids[name], share), None)
        if finer is None:
            too_large[name] = limit
            continue
        cut_by[name] = limit
        grids[name] = finer
        again = True
    return again


def _alone(demands: list[Demand]) -> list[Core]:
    return [Core((number,), demand) for number, demand in enumerate(demands)]


def _packed(chip: Chip, demands: list[Demand]) -> list[Core]:
    """First fit, in the graph's order, so that neighbours in the network share a core."""
    cores: list[tuple[list[int], Demand]] = []
    for number, demand in enumerate(demands):
        for index in range(max(0, len(cores) - OPEN_CORES), len(cores)):
            members, used = cores[index]
            if (used + demand).fits(chip):
                members.append(number)
                cores[index] = (members, used + demand)
                break
        else:
            cores.append(([number], demand))
    return [Core(tuple(members), used) for members, used in cores]
