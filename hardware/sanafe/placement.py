"""Which core of SANA-FE's Loihi 1 holds each neuron.

Populations are cut to a core's limits as in `hardware.loihi`, and packed first fit in the graph's order;
core k stands behind router k // 4. All synapses that a core receives are of one kind: in SANA-FE the kinds
of one core share a table of delays and overwrite each other's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from hardware.energy.parts import part_of
from hardware.errors import BackendError
from hardware.ir.fan_out import fan_out
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import size
from hardware.ir.synapses import AnySynapse, Conv2d, Dense
from hardware.loihi.blocks import Block
from hardware.loihi.chips import get_chip
from hardware.loihi.demands import Demand
from hardware.loihi.layout import CoreLayout
from hardware.loihi.mapping import LIMIT_NAMES
from hardware.loihi.partition import partition

SynapseKind = Literal["dense", "sparse", "convolution"]
KINDS: tuple[SynapseKind, ...] = ("dense", "sparse", "convolution")
CORES_PER_ROUTER, ROUTERS_PER_COLUMN = 4, 4  # 8 x 4 routers, numbered down the columns


@dataclass(frozen=True)
class Placement:
    """Where a graph's neurons are.

    Attributes:
        cores: by population, (n,) the core of each neuron.
        kinds: by population, the kind of the synapses that it receives.
        problems: limits of the real chip that a part exceeds however it is cut, one line each.
        blocks: neurons that lie together, with their core.
    """

    cores: dict[str, np.ndarray]
    kinds: dict[str, SynapseKind]
    problems: tuple[str, ...] = ()
    blocks: tuple[tuple[Block, int], ...] = ()

    @property
    def cores_used(self) -> int:
        """How many cores hold neurons."""
        return 1 + max(int(cores.max()) for cores in self.cores.values())

    def layout(self, graph: SpikeGraph) -> CoreLayout:
        """The same for the energy model, of the graph before or after it was legalised."""
        kept = [(b, core) for b, core in self.blocks if b.population in graph.populations]
        column, row = router_position(np.arange(self.cores_used))
        return CoreLayout(
            chip="loihi1",
            chips=1,
            blocks=tuple(block for block, _ in kept),
            core=np.array([core for _, core in kept]),
            row=row,
            column=column,
        )


def router_position(core: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(column, row) of the routers of cores: messages take hops along both."""
    column, row = np.divmod(core // CORES_PER_ROUTER, ROUTERS_PER_COLUMN)
    return column, row


def part_on_chip(graph: SpikeGraph, name: str) -> str:
    """The part of the network that a population belongs to; "registers" hold what must wait."""
    return "registers" if graph.populations[name].role == "register" else part_of(name)


def place_neurons(graph: SpikeGraph, *, parts_apart: bool = False) -> Placement:
    """Cut, pack and number.

    Args:
        parts_apart: no core holds neurons of two parts of the network (`part_on_chip`).

    Raises:
        BackendError: more cores than the chip has.
    """
    chip = get_chip("loihi1")
    cut = partition(graph, chip, pack=False)
    kinds: dict[str, SynapseKind] = {name: kind_of(graph, name) for name in graph.populations}
    packed: list[_Core] = []
    placed: list[tuple[Block, int]] = []
    cores = {n: np.empty(size(p), dtype=np.int64) for n, p in graph.populations.items()}
    for block, demand in zip(cut.blocks, cut.demands, strict=True):
        kind = kinds[block.population] if graph.incoming(block.population) else None
        part = part_on_chip(graph, block.population) if parts_apart else ""
        core = _first_fit(packed, kind, part, demand)
        placed.append((block, core))
        shape = graph.populations[block.population].shape
        members = np.arange(len(cores[block.population])).reshape(shape)[block.slices]
        cores[block.population][members.ravel()] = core
    if len(packed) > chip.cores:
        raise BackendError(
            f"the graph takes {len(packed)} cores of SANA-FE's Loihi 1, which has {chip.cores}; use fewer "
            f"channels, experts or tokens"
        )
    problems = tuple(
        f"'{name}': even its smallest part exceeds a core's {LIMIT_NAMES[limit]}, which SANA-FE does not check"
        for name, limit in cut.too_large.items()
    )
    return Placement(cores, kinds, problems, tuple(placed))


def kind_of(graph: SpikeGraph, name: str) -> SynapseKind:
    """The kind of most of the connections that a population receives; "dense" without any."""
    totals: dict[SynapseKind, int] = dict.fromkeys(KINDS, 0)
    for synapse in graph.incoming(name):
        totals[_kind(synapse)] += int(fan_out(graph, synapse).sum())
    return max(KINDS, key=lambda kind: totals[kind])


def _kind(synapse: AnySynapse) -> SynapseKind:
    if isinstance(synapse, Dense):
        return "dense"
    return "convolution" if isinstance(synapse, Conv2d) else "sparse"


@dataclass
class _Core:
    kind: SynapseKind | None
    part: str
    used: Demand


def _first_fit(packed: list[_Core], kind: SynapseKind | None, part: str, demand: Demand) -> int:
    """The number of the first core with room, opened if there is none; a core without synapses takes any."""
    chip = get_chip("loihi1")
    for number, core in enumerate(packed):
        suits = (None in (kind, core.kind) or kind == core.kind) and part == core.part
        if suits and (core.used + demand).fits(chip):
            core.kind, core.used = core.kind or kind, core.used + demand
            return number
    packed.append(_Core(kind, part, demand))
    return len(packed) - 1
