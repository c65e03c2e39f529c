"""Turn a float graph into integers under Loihi's rule: weights of 8 bits or fewer, 24-bit state.

One scale per target population. Populations that exchange numbers with weight +1 or -1 (the relays
of a residual stream and all their readers; the scores of a router and its comparators) share one
scale, so that both forms of the residual are the same integer network and comparisons are exact.

A weight becomes a mantissa on the target's grid times 2^exponent, one exponent per synapse, never so low
that a sum is floored. The scale is the largest (within a factor two, where the weights lose least)
for which a bound proves that the accumulated input stays within +-131,071.
A bias beyond 4,095 is split: its coarse part comes from the constant input. A decay becomes the nearest
multiple of 1/4096.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from hardware.errors import GraphError
from hardware.ir.arithmetic import MAX_ACCUMULATED
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import LIF, WHOLE_ROLES, Input, Relay, is_graded
from hardware.ir.synapses import AnySynapse, Conv2d, Dense
from hardware.ir.validate import MAX_THRESHOLD
from hardware.passes.bias import largest_bias
from hardware.passes.bounds import Bounds, largest, message_bounds, population_bounds
from hardware.passes.gating import Gating
from hardware.passes.grid import HIGHEST_EXPONENT, WeightGrid
from hardware.passes.plan import QuantisationPlan, apply_plan, weight_grid
from hardware.passes.scale_groups import ScaleGroup, scale_groups

SHRINK, ATTEMPTS = 0.97, 60
SCALES_PER_OCTAVE = 8


def quantise(graph: SpikeGraph, *, weight_bits: int = 8) -> SpikeGraph:
    """The fixed-point form of a float graph; deterministic.

    Args:
        weight_bits: 2 to 8, sign included.

    Raises:
        GraphError: if a population cannot be represented, naming it and the limit it breaks.
    """
    return apply_plan(graph, choose_plan(graph, weight_bits=weight_bits))


def choose_plan(
    graph: SpikeGraph,
    *,
    weight_bits: int = 8,
    headroom: float = 1.0,
    squares: Mapping[str, np.ndarray] | None = None,
) -> QuantisationPlan:
    """Scales and exponents for a float graph.

    Args:
        weight_bits: 2 to 8, sign included.
        headroom: by what factor the weights may grow later before a sum could leave its range.
        squares: mean square of what each neuron of a population sends, by population (n,); where it
            is given, errors of weights count by it, else by the largest message.
    """
    if graph.arithmetic != "float":
        raise GraphError("quantise needs a float graph; this one is in fixed point already")
    _refuse_rows(graph)
    WeightGrid(weight_bits)  # refuses a wrong number of bits
    return _Chooser(graph, weight_bits, headroom, squares or {}).run()


def _refuse_rows(graph: SpikeGraph) -> None:
    """Rows of score differences, rounded one by one, would no longer agree on one order."""
    for population in graph.populations.values():
        heard = [graph.populations[s.source] for s in graph.incoming(population.name)]
        if population.role == "comparator" and not all(isinstance(p, Relay) for p in heard):
            raise GraphError(
                f"population '{population.name}' compares rows of scores that are not integers yet; "
                f"quantise the graph with score relays, and run scores_to_rows after it"
            )


class _Chooser:
    def __init__(
        self,
        graph: SpikeGraph,
        weight_bits: int,
        headroom: float,
        squares: Mapping[str, np.ndarray],
    ) -> None:
        self.graph, self.weight_bits, self.squares = graph, weight_bits, squares
        self.gating = Gating(graph)
        self.limit = MAX_ACCUMULATED / headroom
        self.scale: dict[str, float] = {}
        self.exponents: dict[int, int] = {}
        self.real: dict[str, Bounds] = {}
        self.messages: dict[str, Bounds] = {}

    def run(self) -> QuantisationPlan:
        for name in self.graph.order:
            current = population_bounds(
                self.gating, name, self.graph.incoming(name), self.real, fixed=False
            )
            self.real[name] = message_bounds(self.graph.populations[name], current, fixed=False)
        for population in self.graph.of_kind(Input):
            assert isinstance(population, Input)
            top = 2 ** (population.bits - 1) - 1
            self.scale[population.name] = top / population.limit if is_graded(population) else 1.0
        for name, population in self.graph.populations.items():
            if isinstance(population, Input) or not is_graded(population):  # whatever their inputs
                self.messages[name] = message_bounds(population, None, fixed=True)
        waiting = scale_groups(self.graph)
        while waiting:
            later = []
            for group in waiting:
                if self._sources_are_scaled(group):
                    self._quantise_group(group)
                else:
                    later.append(group)
            if len(later) == len(waiting):
                raise GraphError(
                    f"the scale of '{waiting[0].names[0]}' depends on itself through relays"
                )
            waiting = later
        return QuantisationPlan(
            weight_bits=self.weight_bits,
            scales=self.scale,
            exponents=tuple(self.exponents[id(s)] for s in self.graph.synapses),
        )

    def _grid(self, synapse: AnySynapse) -> WeightGrid:
        return weight_grid(self.graph, synapse, self.weight_bits)

    def _sources_are_scaled(self, group: ScaleGroup) -> bool:
        return all(
            s.source in self.scale or s.source in group.names
            for name in group.names
            for s in self.graph.incoming(name)
            if is_graded(self.graph.populations[s.source])
        )

    def _source_scale(self, synapse: AnySynapse, own: float, group: ScaleGroup) -> float:
        if not is_graded(self.graph.populations[synapse.source]):
            return 1.0
        return own if synapse.source in group.names else self.scale[synapse.source]

    def _quantise_group(self, group: ScaleGroup) -> None:
        roles = {self.graph.populations[name].role for name in group.names}
        if roles <= WHOLE_ROLES:
            if not self._try(group, 1.0 if roles == {"count"} else 2.0, exact=True):
                raise GraphError(
                    f"population '{group.names[0]}': its accumulated input can exceed "
                    f"+-{MAX_ACCUMULATED}; give it fewer inputs or smaller weights"
                )
            return
        limit = self._scale_limit(group)
        for _ in range(ATTEMPTS):
            scale = min(self._candidates(group, limit), key=lambda s: self._error(group, s))
            if self._try(group, scale, exact=False):
                return
            limit = scale * SHRINK
        raise GraphError(
            f"population '{group.names[0]}': no scale keeps its accumulated input within "
            f"+-{MAX_ACCUMULATED}; its inputs are too many or too unequal"
        )

    def _scale_limit(self, group: ScaleGroup) -> float:
        limits = []
        for name in group.names:
            population = self.graph.populations[name]
            current = population_bounds(
                self.gating, name, self.graph.incoming(name), self.real, fixed=False
            )
            reach, bias = largest(current), largest_bias(population)
            limits.append(self.limit / (reach + bias) if reach + bias > 0 else np.inf)
            limits.append(WeightGrid().largest * 2**HIGHEST_EXPONENT / bias if bias > 0 else np.inf)
            if isinstance(population, LIF):
                top = float(np.max(population.threshold))
                limits.append(MAX_THRESHOLD / top if top > 0 else np.inf)
            for synapse in self.graph.incoming(name):
                ratio = self._ratio(synapse, group)
                if ratio > 0:
                    limits.append(self._grid(synapse).largest * 2**HIGHEST_EXPONENT / ratio)
        limit = min(limits)
        if not np.isfinite(limit):
            raise GraphError(f"population '{group.names[0]}' has no inputs to derive a scale from")
        return min(limit, float(MAX_THRESHOLD))

    def _ratio(self, synapse: AnySynapse, group: ScaleGroup) -> float:
        """Largest |integer weight| per unit of the group's scale; 0 for synapses within the group."""
        if is_graded(self.graph.populations[synapse.source]) and synapse.source in group.names:
            return 0.0
        return float(np.abs(synapse.weight).max(initial=0.0)) / self._source_scale(
            synapse, 1.0, group
        )

    def _candidates(self, group: ScaleGroup, limit: float) -> list[float]:
        """Scales in (limit / 2, limit] at which some synapse uses its whole mantissa."""
        scales = [limit]
        for name in group.names:
            for synapse in self.graph.incoming(name):
                ratio = self._ratio(synapse, group)
                if ratio > 0:
                    grid = self._grid(synapse)
                    exponent = int(np.floor(np.log2(limit * ratio / grid.largest)))
                    if exponent >= grid.lowest_exponent:
                        scales.append(min(limit, grid.largest * 2.0**exponent / ratio))
        if self.weight_bits < 8:  # clipping pays, so no weight need use the whole mantissa
            scales += list(limit * 2.0 ** -np.arange(0, 1, 1 / SCALES_PER_OCTAVE))
        return [s for s in scales if s > limit / 2]

    def _error(self, group: ScaleGroup, scale: float) -> float:
        """Summed squared rounding error of the currents, in real units.

        Copies of one synapse (a stream unrolled to several readers) count once.
        """
        total = 0.0
        seen: set[tuple[str, bytes]] = set()
        for name in group.names:
            for synapse in self.graph.incoming(name):
                key = (synapse.source, hashlib.sha256(synapse.weight.tobytes()).digest())
                if key in seen:
                    continue
                seen.add(key)
                source_scale = self._source_scale(synapse, scale, group)
                grid, wanted = self._grid(synapse), synapse.weight * (scale / source_scale)
                importance = self._importance(synapse)
                exponent = grid.exponent(wanted, importance)
                with np.errstate(
                    over="ignore", invalid="ignore"
                ):  # of scales that are refused later
                    unit = np.square(np.float64(source_scale) / scale)
                    total += float(unit * grid.error(wanted, exponent, importance))
        return total

    def _importance(self, synapse: AnySynapse) -> np.ndarray:
        """Mean square of the messages that each weight meets, broadcast to the weights."""
        squares = self.squares.get(synapse.source)
        if squares is None:
            return np.asarray(largest(self.real[synapse.source]) ** 2)
        if isinstance(synapse, Dense):
            return squares
        if not isinstance(synapse, Conv2d):
            return squares[synapse.columns]
        channels = squares.reshape(self.graph.populations[synapse.source].shape).mean((0, 1))
        per_group = synapse.weight.shape[1]
        group = np.arange(len(synapse.weight)) // (len(synapse.weight) // synapse.groups)
        return channels.reshape(synapse.groups, per_group)[group][:, :, None, None]

    def _try(self, group: ScaleGroup, scale: float, *, exact: bool) -> bool:
        """Quantise with this scale; False if the accumulated input could leave its range."""
        incoming: dict[str, list[AnySynapse]] = {name: [] for name in group.names}
        for name in group.names:
            self.scale[name] = scale
            for synapse in self.graph.incoming(name):
                source_scale = self._source_scale(synapse, scale, group)
                grid, wanted = self._grid(synapse), synapse.weight * (scale / source_scale)
                exponent = grid.exponent(wanted, self._importance(synapse))
                mantissa = grid.mantissa(wanted, exponent)
                if exact and not np.array_equal(mantissa * 2.0**exponent, wanted):
                    raise GraphError(
                        f"synapse '{synapse.source}' -> '{name}': a population with role "
                        f"'{self.graph.populations[name].role}' needs whole weights up to 127"
                    )
                if synapse.weight.any() and not mantissa.any():
                    raise GraphError(
                        f"synapse '{synapse.source}' -> '{name}': all its weights round to zero at "
                        f"the scale {scale:.3g} that the other inputs of '{name}' allow"
                    )
                self.exponents[id(synapse)] = exponent
                incoming[name].append(replace(synapse, weight=mantissa, exponent=exponent))
        for name in group.names:  # in topological order
            current = population_bounds(
                self.gating, name, incoming[name], self.messages, fixed=True
            )
            bias = largest_bias(self.graph.populations[name]) * scale
            if largest(current) + np.rint(bias) > self.limit:
                return False
            self.messages[name] = message_bounds(self.graph.populations[name], current, fixed=True)
        return True
