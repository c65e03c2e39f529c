"""Is it the same network? Two traces compared population by population, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from hardware.errors import BackendError
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import LIF, Input
from hardware.ir.reference import membranes
from hardware.trace import SpikeTrace

#: Graded messages in floating point are sums whose order differs between backends; this is far
#: above the rounding of such sums and far below any difference that a network would make.
GRADED_TOLERANCE = 1e-9


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """The earliest message that differs, in hardware time (step + depth)."""

    population: str
    sample: int
    step: int
    index: tuple[int, ...]
    left: float
    right: float

    def __str__(self) -> str:
        return (
            f"population '{self.population}', sample {self.sample}, step {self.step}, neuron "
            f"{self.index}: {self.left:g} against {self.right:g}"
        )


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What two traces of one graph have in common.

    Attributes:
        compared: spikes (and, in fixed point, graded messages) that both traces hold.
        differing: how many of them are not the same.
        graded_max_difference: of graded messages in floating point, in real units.
        logits_max_difference: of the logits, in real units.
        not_compared: populations that one of the traces lacks (torch only sums the stream).
        predictions_differ: samples that are classified differently.
    """

    left: str
    right: str
    arithmetic: str
    samples: int
    compared: int
    differing: int
    predictions_differ: int
    graded_max_difference: float
    logits_max_difference: float
    not_compared: tuple[str, ...]
    first: Divergence | None
    by_population: dict[str, tuple[int, int]]

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return (
            self.differing == 0
            and self.predictions_differ == 0
            and self.graded_max_difference <= GRADED_TOLERANCE
            and self.logits_max_difference
            <= (0.0 if self.arithmetic == "fixed" else GRADED_TOLERANCE)
        )

    def as_dict(self) -> dict[str, object]:
        """JSON values, without the table by population."""
        values = asdict(self)
        del values["by_population"]
        return {**values, "same": self.same}


def compare_traces(graph: SpikeGraph, left: SpikeTrace, right: SpikeTrace) -> Comparison:
    """Compare all populations that both traces hold; every LIF population must be in both.

    Raises:
        BackendError: the traces are of other graphs, of different samples, or incomplete.
    """
    _check(graph, left, right)
    sent = [n for n in graph.order if not isinstance(graph.populations[n], Input)]
    common = [n for n in sent if n in left.spikes and n in right.spikes]
    exact = {n for n in common if graph.arithmetic == "fixed" or left.spikes[n].dtype == bool}
    by_population: dict[str, tuple[int, int]] = {}
    firsts: list[tuple[int, int, Divergence]] = []
    graded = 0.0
    for name in common:
        a, b = left.spikes[name], right.spikes[name]
        if name not in exact:
            graded = float(np.maximum(graded, _largest_difference(a, b)))  # max() would drop a NaN
            continue
        unequal = a != b
        by_population[name] = (a.size, int(unequal.sum()))
        if unequal.any():
            places = np.argwhere(unequal)
            sample, step, *index = (int(i) for i in places[places[:, 1].argmin()])
            place = (sample, step, *index)
            divergence = Divergence(
                population=name,
                sample=sample,
                step=step,
                index=tuple(index),
                left=float(a[place]),
                right=float(b[place]),
            )
            firsts.append((step + graph.depth[name], len(firsts), divergence))
    return Comparison(
        left=str(left.meta["backend"]),
        right=str(right.meta["backend"]),
        arithmetic=graph.arithmetic,
        samples=left.samples,
        compared=sum(n for n, _ in by_population.values()),
        differing=sum(d for _, d in by_population.values()),
        predictions_differ=int((left.predictions != right.predictions).sum()),
        graded_max_difference=graded,
        logits_max_difference=_largest_difference(left.logits, right.logits),
        not_compared=tuple(n for n in sent if n not in common),
        first=min(firsts)[2] if firsts else None,
        by_population=by_population,
    )


def join_comparisons(graph: SpikeGraph, parts: Sequence[Comparison]) -> Comparison:
    """Comparisons of consecutive batches as the one comparison of all their samples.

    Counts add up, and the first divergence is the earliest in hardware time, then in the graph's
    order, then by sample: what `compare_traces` gives for the whole traces.

    Raises:
        BackendError: there is no part, or they are of other backends or populations.
    """
    if not parts:
        raise BackendError("nothing was compared; give at least one batch of samples")
    kinds = {(p.left, p.right, p.arithmetic, p.not_compared, tuple(p.by_population)) for p in parts}
    if len(kinds) > 1:
        raise BackendError("comparisons of different backends or populations cannot be added up")
    place = {name: index for index, name in enumerate(graph.order)}
    firsts, samples = [], 0
    for part in parts:
        if part.first is not None:
            found = replace(part.first, sample=part.first.sample + samples)
            step = found.step + graph.depth[found.population]
            firsts.append((step, place[found.population], found.sample, found))
        samples += part.samples
    tables = [part.by_population for part in parts]
    return replace(
        parts[0],
        samples=samples,
        compared=sum(p.compared for p in parts),
        differing=sum(p.differing for p in parts),
        predictions_differ=sum(p.predictions_differ for p in parts),
        graded_max_difference=float(np.max([p.graded_max_difference for p in parts])),
        logits_max_difference=float(np.max([p.logits_max_difference for p in parts])),
        first=min(firsts)[3] if firsts else None,
        by_population={
            name: (sum(t[name][0] for t in tables), sum(t[name][1] for t in tables))
            for name in tables[0]
        },
    )


def _largest_difference(left: np.ndarray, right: np.ndarray) -> float:
    return float(np.abs(left - right).max(initial=0.0))


def _check(graph: SpikeGraph, left: SpikeTrace, right: SpikeTrace) -> None:
    for trace in (left, right):
        if trace.meta.get("fingerprint") != graph.fingerprint:
            raise BackendError(
                f"the trace of '{trace.meta.get('backend')}' belongs to another graph; "
                f"record it with this one"
            )
        missing = [p.name for p in graph.of_kind(LIF) if p.name not in trace.spikes]
        if missing:
            raise BackendError(
                f"the trace of '{trace.meta.get('backend')}' lacks {missing[:3]}; record all"
            )
        for name, values in trace.spikes.items():
            shape = (trace.samples, graph.time_steps, *graph.populations[name].shape)
            if values.shape != shape:
                raise BackendError(
                    f"the trace of '{trace.meta.get('backend')}' has {values.shape} for '{name}'; "
                    f"needs {shape}"
                )
    if left.samples != right.samples:
        raise BackendError(f"{left.samples} samples against {right.samples}; compare the same ones")


@dataclass(frozen=True, kw_only=True)
class RoundingReport:
    """How far a trace in less precise arithmetic strays, and how close it was where it began.

    Attributes:
        images_diverged: samples with at least one spike that differs.
        largest_margin: over those samples, distance of the membrane from the threshold at the
            first spike that differs, in real units; None if nothing differs.
    """

    samples: int
    images_diverged: int
    largest_margin: float | None

    @property
    def share(self) -> float:
        """Share of the samples that diverged."""
        return self.images_diverged / self.samples

    @property
    def within_contract(self) -> bool:
        """At most 1 % of the samples diverge, each first within 1e-5 of the threshold."""
        return self.share <= 0.01 and (self.largest_margin or 0.0) <= 1e-5

    def as_dict(self) -> dict[str, object]:
        """JSON values."""
        return {
            **asdict(self),
            "share": self.share,
            "within_contract": self.within_contract,
        }


def join_roundings(parts: Sequence[RoundingReport]) -> RoundingReport:
    """Reports of consecutive batches as the report of all their samples."""
    margins = [p.largest_margin for p in parts if p.largest_margin is not None]
    return RoundingReport(
        samples=sum(p.samples for p in parts),
        images_diverged=sum(p.images_diverged for p in parts),
        largest_margin=max(margins, default=None),
    )


def rounding_divergence(
    graph: SpikeGraph, reference: SpikeTrace, rounded: SpikeTrace
) -> RoundingReport:
    """Compare `rounded` (float32) with the float64 `reference`, sample by sample.

    Only the first difference of a sample tells of rounding; after it spikes cascade.
    """
    _check(graph, reference, rounded)
    earliest: dict[int, tuple[int, int, str, tuple[int, ...]]] = {}
    names = [
        n for n in graph.order if isinstance(graph.populations[n], LIF) and n in rounded.spikes
    ]
    for order, name in enumerate(names):
        unequal = reference.spikes[name] != rounded.spikes[name]
        for sample in np.flatnonzero(unequal.reshape(len(unequal), -1).any(axis=1)).tolist():
            step, *index = (int(i) for i in np.argwhere(unequal[sample])[0])
            found = (step + graph.depth[name], order, name, (step, *index))
            earliest[sample] = min(earliest.get(sample, found), found)
    margins = []
    for sample, (_, _, name, place) in earliest.items():
        one = {n: v[sample : sample + 1] for n, v in reference.spikes.items()}
        membrane = membranes(graph, one, name)[(0, *place)]
        population = graph.populations[name]
        assert isinstance(population, LIF)
        threshold = np.broadcast_to(population.threshold, population.shape)[place[1:]]
        margins.append(abs(float(membrane - threshold)))
    return RoundingReport(
        samples=reference.samples,
        images_diverged=len(earliest),
        largest_margin=max(margins, default=None),
    )
