"""Turn a float graph into integers under Loihi's rule: 8-bit weights, 24-bit state.

One scale per target population. Populations that exchange numbers with weight +1 or -1 (the relays
of a residual stream and all their readers; the scores of a router and its comparators) share one
scale, so that both forms of the residual are the same integer network and comparisons are exact.

A weight becomes an even mantissa in -254..254 times 2^exponent, one exponent per synapse, never
below -1, so that no sum is ever floored. The scale is the largest (within a factor two, where the
weights lose least) for which a bound proves that the accumulated input stays within +-131,071.
A bias beyond 4,095 is split: its coarse part comes from the constant input. A decay becomes the nearest
multiple of 1/4096.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np

from hardware.errors import GraphError
from hardware.ir.arithmetic import DECAY_UNITY, MAX_ACCUMULATED
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import LIF, LOGIC_ROLES, Input, Population, Readout, is_graded
from hardware.ir.synapses import AnySynapse
from hardware.ir.validate import MAX_THRESHOLD
from hardware.passes.bias import check_logic, largest_bias, split_bias
from hardware.passes.bounds import (
    Bounds,
    largest,
    message_bounds,
    population_bounds,
)
from hardware.passes.grid import (
    HIGHEST_EXPONENT,
    LARGEST_MANTISSA,
    LOWEST_EXPONENT,
    round_weight,
    to_integers,
)
from hardware.passes.scale_groups import ScaleGroup, scale_groups

SHRINK, ATTEMPTS = 0.97, 60


def quantise(graph: SpikeGraph) -> SpikeGraph:
    """The fixed-point form of a float graph; deterministic.

    Raises:
        GraphError: if a population cannot be represented, naming it and the limit it breaks.
    """
    if graph.arithmetic != "float":
        raise GraphError("quantise needs a float graph; this one is in fixed point already")
    return _Quantiser(graph).run()


class _Quantiser:
    def __init__(self, graph: SpikeGraph) -> None:
        self.graph = graph
        self.scale: dict[str, float] = {}
        self.weights: dict[int, tuple[np.ndarray, int]] = {}
        self.real: dict[str, Bounds] = {}
        self.messages: dict[str, Bounds] = {}

    def run(self) -> SpikeGraph:
        for name in self.graph.order:
            current = population_bounds(
                self.graph, name, self.graph.incoming(name), self.real, fixed=False
            )
            self.real[name] = message_bounds(self.graph.populations[name], current, fixed=False)
        for population in self.graph.of_kind(Input):
            assert isinstance(population, Input)
            top = 2 ** (population.bits - 1) - 1
            self.scale[population.name] = top / population.limit if is_graded(population) else 1.0
            self.messages[population.name] = message_bounds(population, None, fixed=True)
        waiting = scale_groups(self.graph)
        while waiting:
            ready = [g for g in waiting if self._sources_are_scaled(g)]
            if not ready:
                raise GraphError(
                    f"the scale of '{waiting[0].names[0]}' depends on itself through relays"
                )
            for group in ready:
                self._quantise_group(group)
            waiting = [g for g in waiting if g not in ready]
        return self._assemble()

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
        if roles <= LOGIC_ROLES:
            if not self._try(group, 2.0, exact=True):
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
                self.graph, name, self.graph.incoming(name), self.real, fixed=False
            )
            reach, bias = largest(current), largest_bias(population)
            limits.append(MAX_ACCUMULATED / (reach + bias) if reach + bias > 0 else np.inf)
            limits.append(LARGEST_MANTISSA * 2**HIGHEST_EXPONENT / bias if bias > 0 else np.inf)
            if isinstance(population, LIF):
                top = float(np.max(population.threshold))
                limits.append(MAX_THRESHOLD / top if top > 0 else np.inf)
            for synapse in self.graph.incoming(name):
                ratio = self._ratio(synapse, group)
                if ratio > 0:
                    limits.append(LARGEST_MANTISSA * 2**HIGHEST_EXPONENT / ratio)
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
                    exponent = int(np.floor(np.log2(limit * ratio / LARGEST_MANTISSA)))
                    if exponent >= LOWEST_EXPONENT:
                        scales.append(min(limit, LARGEST_MANTISSA * 2.0**exponent / ratio))
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
                mantissa, exponent = round_weight(synapse.weight * (scale / source_scale))
                difference = mantissa * 2.0**exponent - synapse.weight * (scale / source_scale)
                reach = source_scale * largest(self.real[synapse.source])
                total += float(np.square(difference * reach / scale).sum())
        return total

    def _try(self, group: ScaleGroup, scale: float, *, exact: bool) -> bool:
        """Quantise with this scale; False if the accumulated input could leave its range."""
        incoming: dict[str, list[AnySynapse]] = {name: [] for name in group.names}
        for name in group.names:
            self.scale[name] = scale
            for synapse in self.graph.incoming(name):
                wanted = synapse.weight * (scale / self._source_scale(synapse, scale, group))
                mantissa, exponent = round_weight(wanted)
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
                self.weights[id(synapse)] = (mantissa, exponent)
                incoming[name].append(replace(synapse, weight=mantissa, exponent=exponent))
        for name in (n for n in self.graph.order if n in group.names):
            known = self._messages_with_defaults()
            current = population_bounds(self.graph, name, incoming[name], known, fixed=True)
            bias = largest_bias(self.graph.populations[name]) * scale
            if largest(current) + np.rint(bias) > MAX_ACCUMULATED:
                return False
            self.messages[name] = message_bounds(self.graph.populations[name], current, fixed=True)
        return True

    def _messages_with_defaults(self) -> dict[str, Bounds]:
        """Integer message bounds; binary populations not quantised yet still send only 0 or 1."""
        known = dict(self.messages)
        for name, population in self.graph.populations.items():
            if name not in known and not is_graded(population):
                known[name] = message_bounds(population, None, fixed=True)
        return known

    def _assemble(self) -> SpikeGraph:
        synapses: list[AnySynapse] = []
        for synapse in self.graph.synapses:
            mantissa, exponent = self.weights[id(synapse)]
            synapses.append(replace(synapse, weight=mantissa, exponent=exponent))
        populations: list[Population] = []
        coarse: list[Population] = []
        constant = next(
            (
                p.name
                for p in self.graph.of_kind(Input)
                if isinstance(p, Input) and p.kind == "constant"
            ),
            "constant",
        )
        for name, population in self.graph.populations.items():
            scale = self.scale[name]
            if isinstance(population, LIF):
                check_logic(population, scale)
                bias, extra = split_bias(population, scale, constant)
                threshold = to_integers(population.threshold * scale)
                decay = round(population.membrane_decay * DECAY_UNITY) / DECAY_UNITY
                population = replace(
                    population, membrane_decay=decay, threshold=threshold, bias=bias, scale=scale
                )
                if extra is not None:
                    synapses.append(extra)
                    if constant not in self.graph.populations:
                        coarse = [Input(name=constant, shape=(1,), kind="constant")]
            elif isinstance(population, Readout):
                bias = to_integers(population.bias * scale)
                population = replace(population, bias=bias, scale=scale)
            else:
                population = replace(population, scale=scale)
            populations.append(population)
        return self.graph.with_(
            populations=coarse + populations, synapses=synapses, arithmetic="fixed"
        )
