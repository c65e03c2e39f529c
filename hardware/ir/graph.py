"""`SpikeGraph`: a spiking network as validated plain data."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np
from scipy.sparse import csr_matrix

from hardware.errors import GraphError
from hardware.ir.nodes import Input, Population, Readout, is_sourceless_input
from hardware.ir.synapses import AnySynapse, to_matrix
from hardware.ir.validate import check_population, check_synapse

Arithmetic = Literal["float", "fixed"]


@dataclass(frozen=True, kw_only=True, eq=False)
class SpikeGraph:
    """Populations and synapses that present one sample for `time_steps` steps.

    Args:
        populations: by name, in any order.
        synapses: each from one population to another (or to itself).
        time_steps: T, the length of a window.
        arithmetic: "float" (real numbers) or "fixed" (integers under Loihi's rule).
        gate_limits: for each router, how many of its experts can be active at once (K).
        notes: facts about the origin (JSON values); they do not change what the graph means.

    Raises:
        GraphError: naming the population or synapse that is wrong.
    """

    populations: dict[str, Population]
    synapses: tuple[AnySynapse, ...]
    time_steps: int
    arithmetic: Arithmetic = "float"
    gate_limits: dict[str, int] = field(default_factory=dict)
    notes: dict[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.arithmetic not in ("float", "fixed"):
            raise GraphError(f"arithmetic is {self.arithmetic!r}; use 'float' or 'fixed'")
        if type(self.time_steps) is not int or not 1 <= self.time_steps <= 4096:
            raise GraphError(f"time_steps is {self.time_steps!r}; use an integer from 1 to 4096")
        if not self.populations:
            raise GraphError("the graph has no populations")
        for name, population in self.populations.items():
            if name != population.name:
                raise GraphError(f"population '{population.name}' is listed as '{name}'")
            check_population(population, self.arithmetic, self.time_steps)
        for router, limit in self.gate_limits.items():
            if type(router) is not str or type(limit) is not int or limit < 1:
                raise GraphError(
                    f"gate_limits has {router!r}: {limit!r}; use a router's name and K >= 1"
                )
        for synapse in self.synapses:
            check_synapse(synapse, self.populations, self.arithmetic)
            if synapse.expert is not None and synapse.expert[0] not in self.gate_limits:
                raise GraphError(
                    f"synapse '{synapse.source}' -> '{synapse.target}' belongs to the router "
                    f"'{synapse.expert[0]}', which gate_limits does not list"
                )
        _ = self.order  # refuses cycles

    def incoming(self, name: str) -> list[AnySynapse]:
        """Synapses whose target is `name`, in the graph's order."""
        return self._incoming[name]

    def outgoing(self, name: str) -> list[AnySynapse]:
        """Synapses whose source is `name`, in the graph's order."""
        return self._outgoing[name]

    def of_kind(self, kind: type) -> list[Population]:
        """Populations of one class, in the graph's order."""
        return [p for p in self.populations.values() if isinstance(p, kind)]

    @property
    def data_input(self) -> Input:
        """The one population that takes the samples."""
        found = [p for p in self.populations.values() if _takes_data(p)]
        if len(found) != 1:
            raise GraphError(f"the graph has {len(found)} inputs for samples; it needs exactly 1")
        assert isinstance(found[0], Input)
        return found[0]

    @property
    def readout(self) -> Readout:
        """The one readout."""
        found = [p for p in self.populations.values() if isinstance(p, Readout)]
        if len(found) != 1:
            raise GraphError(f"the graph has {len(found)} readouts; it needs exactly 1")
        return found[0]

    @cached_property
    def _incoming(self) -> dict[str, list[AnySynapse]]:
        found: dict[str, list[AnySynapse]] = {name: [] for name in self.populations}
        for synapse in self.synapses:
            found[synapse.target].append(synapse)
        return found

    @cached_property
    def _outgoing(self) -> dict[str, list[AnySynapse]]:
        found: dict[str, list[AnySynapse]] = {name: [] for name in self.populations}
        for synapse in self.synapses:
            found[synapse.source].append(synapse)
        return found

    @cached_property
    def order(self) -> tuple[str, ...]:
        """Names so that every source stands before its targets (self-loops aside)."""
        waiting = {
            name: len({s.source for s in self._incoming[name]} - {name})
            for name in self.populations
        }
        ready = deque(name for name, count in waiting.items() if count == 0)
        order: list[str] = []
        while ready:
            name = ready.popleft()
            order.append(name)
            for target in dict.fromkeys(s.target for s in self._outgoing[name] if s.target != name):
                waiting[target] -= 1
                if waiting[target] == 0:
                    ready.append(target)
        if len(order) < len(self.populations):
            stuck = [name for name, count in waiting.items() if count > 0]
            raise GraphError(
                f"a cycle runs through {stuck[:6]}: only a population's loop onto itself is allowed"
            )
        return tuple(order)

    @cached_property
    def last_reader(self) -> dict[str, int]:
        """Place in `order` after which nobody reads a population's messages any more; -1: nobody does."""
        place = {name: index for index, name in enumerate(self.order)}
        return {
            name: max((place[s.target] for s in self._outgoing[name]), default=-1)
            for name in self.order
        }

    @cached_property
    def depth(self) -> dict[str, int]:
        """Longest path from the input, in steps; what has no sources is as deep as its readers need."""
        floating = {
            n
            for n in self.populations
            if not self._incoming[n] and not _takes_data(self.populations[n])
        }
        depth: dict[str, int] = {}
        for name in self.order:
            if name not in floating:
                before = [
                    depth[s.source]
                    for s in self._incoming[name]
                    if s.source in depth and s.source != name
                ]
                depth[name] = 1 + max(before, default=0) if self._incoming[name] else 0
        for name in floating:
            readers = [depth[s.target] for s in self._outgoing[name] if s.target in depth]
            depth[name] = min(readers, default=1) - 1
        return depth

    @property
    def is_balanced(self) -> bool:
        """Whether each forward delay is the difference of the depths, so that samples can stream."""
        return all(
            s.delay == self.depth[s.target] - self.depth[s.source]
            for s in self.synapses
            if s.source != s.target and not _is_constant(self.populations[s.source])
        )

    def matrix(self, synapse: AnySynapse) -> csr_matrix:
        """The synapse as a sparse matrix (n_target, n_source)."""
        source, target = self.populations[synapse.source], self.populations[synapse.target]
        return to_matrix(synapse, source.shape, target.shape)

    def with_(
        self,
        *,
        populations: Iterable[Population] | None = None,
        synapses: Iterable[AnySynapse] | None = None,
        arithmetic: Arithmetic | None = None,
    ) -> SpikeGraph:
        """A new, validated graph with the named parts exchanged."""
        return replace(
            self,
            populations=self.populations
            if populations is None
            else {p.name: p for p in populations},
            synapses=self.synapses if synapses is None else tuple(synapses),
            arithmetic=arithmetic or self.arithmetic,
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over everything that the graph means (notes left out)."""
        from hardware.ir.serialize import to_arrays

        structure, arrays = to_arrays(self)
        structure.pop("notes")
        digest = hashlib.sha256(json.dumps(structure, sort_keys=True).encode())
        for name in sorted(arrays):
            digest.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
        return digest.hexdigest()

    def save(self, path: str) -> None:
        """Write the graph as one file; see `hardware.ir.serialize`."""
        from hardware.ir.serialize import save_graph

        save_graph(self, path)

    @staticmethod
    def load(path: str) -> SpikeGraph:
        """Read a graph written by `save`; raises FileError for anything else."""
        from hardware.ir.serialize import load_graph

        return load_graph(path)


def _takes_data(population: Population) -> bool:
    return isinstance(population, Input) and not is_sourceless_input(population)


def _is_constant(population: Population) -> bool:
    return isinstance(population, Input) and population.kind == "constant"
