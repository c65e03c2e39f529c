"""Where on the mesh each core of a network lies: traffic times distance, kept small.

Cores are numbered in the graph's order. Chips stand in a near-square array, their meshes side by side; a
message travels along rows and columns of tiles, and its hops are the tiles that it passes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

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


def evaluate(mesh: Mesh, slot: np.ndarray, traffic: np.ndarray) -> Placement:
    """What `traffic` (cores, cores) costs with cores in these slots."""
    source, target = np.nonzero(traffic)
    amount = traffic[source, target].astype(np.float64)
    hops = amount @ mesh.distance(slot[source], slot[target])
    away = mesh.chip[slot[source]] != mesh.chip[slot[target]]
    return Placement(slot, float(hops), float(amount[away].sum()))


def row_major(mesh: Mesh, traffic: np.ndarray) -> Placement:
    """Cores in the graph's order, tile by tile along the rows."""
    return evaluate(mesh, np.arange(len(traffic)), traffic)


def random_placements(mesh: Mesh, traffic: np.ndarray, seed: int) -> list[Placement]:
    """Cores in slots drawn at random, a few times."""
    generator = np.random.default_rng(seed)
    return [
        evaluate(mesh, generator.permutation(len(mesh.row))[: len(traffic)], traffic)
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
    both = (traffic + traffic.T).astype(np.float64)
    np.fill_diagonal(both, 0.0)
    starts = [_snake(mesh)[:cores], np.arange(cores)]
    best = min((evaluate(mesh, slot, traffic) for slot in starts), key=lambda p: p.hops)
    if cores < 2 or best.hops == 0:
        return best
    where, used_by = best.slot.copy(), np.full(slots, -1)
    used_by[where] = np.arange(cores)
    generator = np.random.default_rng(seed)
    swaps = min(MOST_SWAPS, SWAPS_PER_CORE * cores)
    heat = best.hops / cores * START_HEAT * (END_HEAT / START_HEAT) ** (np.arange(swaps) / swaps)
    chosen, to = generator.integers(cores, size=swaps), generator.integers(slots, size=swaps)
    luck = generator.random(swaps)
    for core, slot, warmth, chance in zip(chosen, to, heat, luck, strict=True):
        gain = _gain(mesh, both, where, core, slot, int(used_by[slot]))
        if gain >= 0 or chance < math.exp(gain / warmth):
            _swap(where, used_by, core, slot)
    return min(best, evaluate(mesh, where, traffic), key=lambda p: p.hops)


def _snake(mesh: Mesh) -> np.ndarray:
    """Slots along the rows of tiles, every second row backwards, chip by chip."""
    forth = np.where(mesh.row % 2 == 0, mesh.column, -mesh.column)
    return np.lexsort((forth, mesh.row, mesh.chip))


def _gain(
    mesh: Mesh, both: np.ndarray, where: np.ndarray, core: int, slot: int, other: int
) -> float:
    """Hops that are saved if `core` and what is in `slot` change places."""
    own = where[core]
    change = mesh.distance(np.asarray(own), where) - mesh.distance(np.asarray(slot), where)
    pull = both[core] - both[other] if other >= 0 else both[core].copy()
    pull[core] = 0.0
    if other >= 0:
        pull[other] = 0.0  # they stay as far apart as they are
    return float(pull @ change)


def _swap(where: np.ndarray, used_by: np.ndarray, core: int, slot: int) -> None:
    own, other = where[core], used_by[slot]
    where[core], used_by[slot], used_by[own] = slot, core, other
    if other >= 0:
        where[other] = own
