"""Where on the mesh each core of a network lies: traffic times distance, kept small.

Cores are numbered in the graph's order. Chips stand in a near-square array, their meshes side by side; a
message travels along rows and columns of tiles, and its hops are the tiles that it passes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix

from hardware.loihi.chips import Chip

RANDOM_PLACEMENTS = 10
SWAPS_PER_CORE = 400
MOST_SWAPS = 200_000
START_HEAT, END_HEAT = 0.3, 0.001  # in units of the mean cost of a core


@dataclass(frozen=True)
class Mesh:
    """Slots for cores on as many chips as it takes.

    Attributes:
        row, column: (slots,) tile coordinates over all chips.
        chip: (slots,) number of the chip.
    """

    row: np.ndarray
    column: np.ndarray
    chip: np.ndarray

    @property
    def chips(self) -> int:
        """How many."""
        return int(self.chip.max()) + 1

    def distance(self, one: np.ndarray, other: np.ndarray) -> np.ndarray:
        """Hops between slots."""
        return abs(self.row[one] - self.row[other]) + abs(self.column[one] - self.column[other])


@dataclass(frozen=True)
class Placement:
    """Slot of each core, and what the traffic costs there.

    Attributes:
        hops: messages times tiles passed, per sample.
        between_chips: messages per sample that leave their chip.
    """

    slot: np.ndarray
    hops: float
    between_chips: float


def build_mesh(chip: Chip, cores: int) -> Mesh:
    """Chips enough for `cores`; slots in row-major order, chip by chip."""
    chips = max(1, math.ceil(cores / chip.cores))
    per_row = math.ceil(math.sqrt(chips))
    rows, columns = chip.tiles
    slot = np.arange(chips * chip.cores)
    number, tile = slot // chip.cores, slot % chip.cores // chip.cores_per_tile
    return Mesh(
        row=number // per_row * rows + tile // columns,
        column=number % per_row * columns + tile % columns,
        chip=number,
    )


@dataclass(frozen=True)
class Flows:
    """Traffic as a list, an entry per (source core, target core) with messages."""

    source: np.ndarray
    target: np.ndarray
    amount: np.ndarray

    @staticmethod
    def of(traffic: np.ndarray) -> Flows:
        """Of a matrix (cores, cores)."""
        source, target = np.nonzero(traffic)
        return Flows(source, target, traffic[source, target].astype(np.float64))

    def cost(self, mesh: Mesh, slot: np.ndarray) -> Placement:
        """With cores in these slots."""
        own, other = slot[self.source], slot[self.target]
        away = mesh.chip[own] != mesh.chip[other]
        hops = float(self.amount @ mesh.distance(own, other))
        return Placement(slot, hops, float(self.amount[away].sum()))


def evaluate(mesh: Mesh, slot: np.ndarray, traffic: np.ndarray) -> Placement:
    """What `traffic` (cores, cores) costs with cores in these slots."""
    return Flows.of(traffic).cost(mesh, slot)


def row_major(mesh: Mesh, traffic: np.ndarray) -> Placement:
    """Cores in the graph's order, tile by tile along the rows."""
    return evaluate(mesh, np.arange(len(traffic)), traffic)


def random_placements(mesh: Mesh, traffic: np.ndarray, seed: int) -> list[Placement]:
    """Cores in slots drawn at random, a few times."""
    generator, flows = np.random.default_rng(seed), Flows.of(traffic)
    return [
        flows.cost(mesh, generator.permutation(len(mesh.row))[: len(traffic)])
        for _ in range(RANDOM_PLACEMENTS)
    ]


def place(mesh: Mesh, traffic: np.ndarray, seed: int = 0) -> Placement:
    """Cores near those they talk to: a snake along the mesh, improved by simulated annealing.

    Swaps two slots at a time (one may be empty); the same seed gives the same placement, and it is
    never worse than the better of the snake and row-major order.

    Args:
        traffic: (cores, cores) messages per sample.
    """
    cores, slots = len(traffic), len(mesh.row)
    flows = Flows.of(traffic)
    starts = [_snake(mesh)[:cores], np.arange(cores)]
    best = min((flows.cost(mesh, slot) for slot in starts), key=lambda p: p.hops)
    if cores < 2 or best.hops == 0:
        return best
    talks = _neighbours(flows, cores)
    where, used_by = best.slot.copy(), np.full(slots, -1)
    used_by[where] = np.arange(cores)
    generator = np.random.default_rng(seed)
    swaps = min(MOST_SWAPS, SWAPS_PER_CORE * cores)
    heat = best.hops / cores * START_HEAT * (END_HEAT / START_HEAT) ** (np.arange(swaps) / swaps)
    chosen, to = generator.integers(cores, size=swaps), generator.integers(slots, size=swaps)
    luck = generator.random(swaps)
    for core, slot, warmth, chance in zip(chosen, to, heat, luck, strict=True):
        gain = _gain(mesh, talks, where, core, slot, int(used_by[slot]))
        if gain >= 0 or chance < math.exp(gain / warmth):
            _swap(where, used_by, core, slot)
    return min(best, flows.cost(mesh, where), key=lambda p: p.hops)


def _snake(mesh: Mesh) -> np.ndarray:
    """Slots along the rows of tiles, every second row backwards, chip by chip."""
    forth = np.where(mesh.row % 2 == 0, mesh.column, -mesh.column)
    return np.lexsort((forth, mesh.row, mesh.chip))


def _neighbours(flows: Flows, cores: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each core: the others that it talks to or hears, and messages both ways."""
    one_way = coo_matrix((flows.amount, (flows.source, flows.target)), shape=(cores, cores)).tocsr()
    both = (one_way + one_way.T).tocsr()
    both.setdiag(0.0)
    both.eliminate_zeros()
    both.sort_indices()
    spans = zip(both.indptr, both.indptr[1:], strict=False)
    return [(both.indices[a:b], both.data[a:b]) for a, b in spans]


def _gain(
    mesh: Mesh,
    talks: list[tuple[np.ndarray, np.ndarray]],
    where: np.ndarray,
    core: int,
    slot: int,
    other: int,
) -> float:
    """Hops that are saved if `core` and what is in `slot` change places."""
    own = where[core]
    gain = _saved(mesh, talks[core], where, own, slot, other)
    if other >= 0:
        gain += _saved(mesh, talks[other], where, slot, own, core)
    return gain


def _saved(
    mesh: Mesh,
    talks: tuple[np.ndarray, np.ndarray],
    where: np.ndarray,
    start: int,
    end: int,
    partner: int,
) -> float:
    """Hops that a core saves by moving from `start` to `end`, from which its partner comes."""
    others, messages = talks
    at = where[others]
    row, column = mesh.row[at], mesh.column[at]
    change = abs(mesh.row[start] - row) + abs(mesh.column[start] - column)
    change -= abs(mesh.row[end] - row) + abs(mesh.column[end] - column)
    change[others == partner] = 0  # they stay as far apart as they are
    return float(messages @ change)


def _swap(where: np.ndarray, used_by: np.ndarray, core: int, slot: int) -> None:
    own, other = where[core], used_by[slot]
    where[core], used_by[slot], used_by[own] = slot, core, other
    if other >= 0:
        where[other] = own
