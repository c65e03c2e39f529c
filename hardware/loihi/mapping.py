"""How a graph lies on a Loihi chip: an estimate, since the compiler and its limits are not public."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from hardware.energy.parts import part_of
from hardware.errors import MappingError
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import LIF, Input, Population, is_graded
from hardware.loihi.chips import Chip, get_chip
from hardware.loihi.edges import traffic_between
from hardware.loihi.layout import CoreLayout
from hardware.loihi.partition import Partition, partition, worst_limit
from hardware.loihi.placement import (
    Mesh,
    Placement,
    build_mesh,
    place,
    random_placements,
    row_major,
)
from hardware.passes.pool_tokens import reads_tokens_alike
from hardware.trace import SpikeTrace

#: What to do about a limit.
ADVICE = {
    "neurons": "fewer neurons: larger strides in the stem, fewer channels, fewer experts",
    "in_axons": "fewer inputs per neuron: fewer channels, grouped or depthwise convolutions",
    "out_axons": "fewer targets per neuron: graded relays instead of unrolled residuals, fewer experts",
    "synapse_words": "less weight memory: fewer channels or narrower experts, depthwise convolutions",
}
LIMIT_NAMES = {
    "neurons": "neurons",
    "in_axons": "incoming axons",
    "out_axons": "outgoing axons",
    "synapse_words": "synapse memory",
}


@dataclass(frozen=True)
class MappingReport:
    """Where a graph's populations lie, and what that costs.

    Attributes:
        traffic: (cores, cores) messages per sample.
        placed, row_major, random: the placement kept, and what it is compared with.
        problems: why the chip could not run it as it is; empty if nothing is known.
    """

    chip: Chip
    partition: Partition
    mesh: Mesh
    traffic: np.ndarray
    placed: Placement
    row_major: Placement
    random: tuple[Placement, ...]
    problems: tuple[str, ...]
    measured: bool

    @property
    def cores(self) -> int:
        """Cores that are used."""
        return len(self.partition.cores)

    @property
    def fits(self) -> bool:
        """Whether one chip holds it and nothing known stands against it."""
        return self.cores <= self.chip.cores and not self.problems

    @property
    def binding(self) -> str:
        """The limit that most cores come closest to."""
        worst = Counter(worst_limit(core.demand, self.chip)[1] for core in self.partition.cores)
        return worst.most_common(1)[0][0]

    @property
    def utilisation(self) -> dict[str, tuple[float, float]]:
        """Limit -> (mean, largest) share over the cores."""
        uses = [core.demand.use(self.chip) for core in self.partition.cores]
        return {
            name: (float(np.mean([u[name] for u in uses])), max(u[name] for u in uses))
            for name in uses[0]
        }

    def cores_of(self, population: str) -> list[int]:
        """Cores that hold a part of the population."""
        blocks = self.partition.blocks
        return [
            number
            for number, core in enumerate(self.partition.cores)
            if any(blocks[b].population == population for b in core.blocks)
        ]

    @property
    def layout(self) -> CoreLayout:
        """Which neurons lie in which core, as placed."""
        core = np.empty(len(self.partition.blocks), dtype=np.int64)
        for number, one in enumerate(self.partition.cores):
            core[list(one.blocks)] = number
        return CoreLayout(
            chip=self.chip.name,
            chips=self.mesh.chips,
            blocks=self.partition.blocks,
            core=core,
            row=self.mesh.row[self.placed.slot],
            column=self.mesh.column[self.placed.slot],
        )

    @property
    def advice(self) -> list[str]:
        """What to change, the largest populations by cores first, if it does not fit one chip."""
        if self.cores <= self.chip.cores and not self.partition.too_large:
            return []
        shares: Counter[str] = Counter()
        for core in self.partition.cores:
            for block in core.blocks:
                shares[self.partition.blocks[block].population] += 1 / len(core.blocks)  # type: ignore[assignment]
        lines = [f"{LIMIT_NAMES[self.binding]} bind: {ADVICE[self.binding]}"]
        for name, cores in shares.most_common(3):
            cut = self.partition.cut_by.get(name)
            why = f", cut by {LIMIT_NAMES[cut]}" if cut else ""
            lines.append(f"{name} takes about {cores:.0f} cores{why}")
        return lines

    def as_dict(self) -> dict[str, object]:
        """JSON values."""
        random_hops = [one.hops for one in self.random]
        return {
            "chip": self.chip.name,
            "grade": "estimate",
            "limits": {
                name: {"limit": getattr(self.chip, name), "source": source}
                for name, source in self.chip.sources.items()
            },
            "cores": self.cores,
            "cores_per_chip": self.chip.cores,
            "cores_per_tile": self.chip.cores_per_tile,
            "tiles": list(self.chip.tiles),
            "chips": self.mesh.chips,
            "fits": self.fits,
            "problems": list(self.problems),
            "binding": self.binding,
            "advice": self.advice,
            "utilisation": {
                name: {"mean": mean, "largest": largest}
                for name, (mean, largest) in self.utilisation.items()
            },
            "traffic": {
                "messages_per_sample": float(self.traffic.sum()),
                "within_a_core": float(np.trace(self.traffic)),
                "measured": self.measured,
                "hops_per_sample": {
                    "placed": self.placed.hops,
                    "row_major": self.row_major.hops,
                    "random_mean": float(np.mean(random_hops)),
                    "random_least": min(random_hops),
                },
                "between_chips_per_sample": self.placed.between_chips,
            },
            "populations": [self._population(name) for name in self.partition.grids],
            "core_list": [self._core(number) for number in range(self.cores)],
        }

    def _population(self, name: str) -> dict[str, object]:
        grid = self.partition.grids[name]
        return {
            "name": name,
            "shape": list(grid.shape),
            "blocks": len(grid),
            "cores": self.cores_of(name),
            "cut_by": self.partition.cut_by.get(name),
        }

    def _core(self, number: int) -> dict[str, object]:
        core, slot = self.partition.cores[number], self.placed.slot[number]
        blocks = [self.partition.blocks[b] for b in core.blocks]
        most = max(blocks, key=lambda block: block.neurons)
        return {
            "part": part_of(most.population),
            "chip": int(self.mesh.chip[slot]),
            "tile": [int(self.mesh.row[slot]), int(self.mesh.column[slot])],
            "blocks": [
                {"population": b.population, "from": list(b.low), "to": list(b.high)}
                for b in blocks
            ],
            "neurons": core.demand.neurons,
            "in_axons": core.demand.in_axons,
            "out_axons": core.demand.out_axons,
            "synapse_words": core.demand.synapse_words,
            "use": core.demand.use(self.chip),
        }


def map_graph(
    graph: SpikeGraph,
    chip: str = "loihi2",
    *,
    trace: SpikeTrace | None = None,
    rate: float = 0.15,
    pack: bool = True,
    seed: int = 0,
) -> MappingReport:
    """Cut a graph into cores and place them.

    Args:
        graph: balanced, float or fixed, before legalisation for Lava (a chip has delays of its own).
        chip: a name of `hardware.loihi.chips.CHIPS`.
        trace: whose spikes are the traffic; without it LIF neurons are taken to fire at `rate`.
        rate: spikes per neuron and step.
        pack: see `partition`.
        seed: of the placement.

    Raises:
        MappingError: unknown chip, a rate outside 0..1, or a trace of another graph.
    """
    limits = get_chip(chip)
    check_rate(rate)
    sent = messages_sent(graph, trace, rate)
    cut = partition(graph, limits, pack=pack)
    core_of = np.empty(len(cut.blocks), dtype=np.int64)
    for number, core in enumerate(cut.cores):
        core_of[list(core.blocks)] = number
    traffic = traffic_between(graph, cut.edges, core_of, sent)
    mesh = build_mesh(limits, len(cut.cores))
    return MappingReport(
        chip=limits,
        partition=cut,
        mesh=mesh,
        traffic=traffic,
        placed=place(mesh, traffic, seed),
        row_major=row_major(mesh, traffic),
        random=tuple(random_placements(mesh, traffic, seed)),
        problems=tuple(find_problems(graph, limits, cut)),
        measured=trace is not None,
    )


def check_rate(rate: float) -> None:
    """MappingError unless it is a share of the steps."""
    if not 0 <= rate <= 1:
        raise MappingError(f"rate={rate}; use a number of spikes per neuron and step in 0..1")


def messages_sent(
    graph: SpikeGraph, trace: SpikeTrace | None, rate: float
) -> dict[str, np.ndarray]:
    """Messages per sample of each neuron, by population and in its shape."""
    if trace is None:
        return {name: _assumed(p, graph.time_steps, rate) for name, p in graph.populations.items()}
    if trace.meta.get("fingerprint") != graph.fingerprint:
        raise MappingError("the trace was recorded from another graph; record this one")
    sent = {}
    for name in graph.populations:
        if name not in trace.spikes:
            raise MappingError(f"the trace lacks population '{name}'; record all populations")
        spikes = trace.spikes[name]
        sent[name] = np.count_nonzero(spikes, axis=(0, 1)) / len(spikes)
    return sent


def _assumed(population: Population, steps: int, rate: float) -> np.ndarray:
    per_step = rate if isinstance(population, LIF) else 1.0
    if isinstance(population, Input) and population.kind == "clock":
        per_step = 1 / steps
    return np.full(population.shape, steps * per_step)


def find_problems(graph: SpikeGraph, chip: Chip, cut: Partition) -> list[str]:
    """What is known to stand against running the graph on the chip, one line each."""
    found = [
        f"population '{name}': even its smallest part exceeds a core's {LIMIT_NAMES[limit]}"
        + _way_out(graph, chip, name, limit)
        for name, limit in cut.too_large.items()
    ]
    if not chip.graded:
        graded = [n for n, p in graph.populations.items() if is_graded(p)]
        relays = [n for n in graded if not isinstance(graph.populations[n], Input)]
        if relays:
            pooled = any(graph.populations[n].role == "count" for n in relays)
            found.append(
                f"{chip.name} has binary spikes only and {len(relays)} populations send numbers "
                f"('{relays[0]}' first): lower with --residual unrolled{' --head direct' if pooled else ''}; scores of a top-k router stay graded"
            )
        elif graded:
            found.append(
                f"{chip.name} has binary spikes only and '{graded[0]}' sends numbers: the image must "
                f"enter as biases or as spikes"
            )
    late = [s for s in graph.synapses if s.delay > chip.most_delay]
    if late:
        found.append(
            f"synapse '{late[0].source}' -> '{late[0].target}' has a delay of {late[0].delay}; "
            f"{chip.name} has at most {chip.most_delay}: it needs a relay on the way"
        )
    return found


def _way_out(graph: SpikeGraph, chip: Chip, name: str, limit: str) -> str:
    helps = limit in ("synapse_words", "in_axons") and chip.graded
    return ": lower with --head pooled" if helps and reads_tokens_alike(graph, name) else ""
