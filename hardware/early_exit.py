"""Ending a window before its last step: what the shorter window answers, costs and takes.

Axes: S samples, T steps of a window, P populations, C classes. Everything is computed from one trace of
whole windows: neurons are causal and state is cleared between samples, so the first k steps of a window
of T are those of a window of k.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hardware.energy.costs import CostTable
from hardware.energy.counts import OperationCounter
from hardware.energy.report import price
from hardware.errors import HardwareError
from hardware.ir.fan_out import fan_out
from hardware.ir.graph import SpikeGraph
from hardware.trace import SpikeTrace


@dataclass(frozen=True, kw_only=True, eq=False)
class StepRecord:
    """What each step of each window did.

    Attributes:
        logits: (S, T, C) after each step: the mean of the readout's currents so far, in real units.
        synops: (P, S, T) synaptic operations that the messages of a population's step trigger.
        ahead: (P,) steps by which a population precedes the readout in the pipeline.
        depth: of the readout, in steps.
    """

    logits: np.ndarray
    synops: np.ndarray
    ahead: np.ndarray
    depth: int

    @property
    def margins(self) -> np.ndarray:
        """(S, T) the best logit minus the second best; infinite with a single class."""
        if self.logits.shape[-1] == 1:
            return np.full(self.logits.shape[:2], np.inf)
        second, best = np.moveaxis(np.partition(self.logits, -2, axis=-1)[..., -2:], -1, 0)
        return best - second

    def exit_steps(self, threshold: float) -> np.ndarray:
        """(S,) steps until the margin is at least `threshold`; all T where it never is."""
        sure = self.margins >= threshold
        return np.where(sure.any(axis=1), sure.argmax(axis=1) + 1, self.logits.shape[1])

    def predictions(self, steps: np.ndarray) -> np.ndarray:
        """(S,) the answer of each sample after so many steps, (S,) or one number for all."""
        steps = np.broadcast_to(steps, len(self.logits))
        return self.logits[np.arange(len(steps)), steps - 1].argmax(axis=-1)

    def executed(self, steps: np.ndarray | int, *, in_flight: bool = False) -> np.ndarray:
        """(S,) synaptic operations of windows that end after `steps` steps of each sample.

        Args:
            in_flight: the host hears of step k only when it has passed the whole pipeline; a population
                that precedes the readout by a steps has done min(T, k + a) steps by then. Without it,
                the window was known to have k steps from the start.
        """
        total = np.cumsum(self.synops, axis=-1)
        steps = np.broadcast_to(steps, self.synops.shape[1])
        done = np.broadcast_to(steps, self.synops.shape[:2])
        if in_flight:
            done = np.minimum(done + self.ahead[:, None], self.synops.shape[2])
        return np.take_along_axis(total, done[..., None] - 1, axis=-1)[..., 0].sum(axis=0)

    def latency(self, steps: np.ndarray) -> np.ndarray:
        """(S,) hardware steps from a sample's first to the readout's last of `steps`: depth + steps."""
        return self.depth + np.asarray(steps)

    def interval(self, steps: np.ndarray) -> np.ndarray:
        """(S,) hardware steps until the next sample may start, if exits are heard of in a pipeline."""
        return np.minimum(self.logits.shape[1], self.latency(steps))


def record_steps(graph: SpikeGraph, traces: Iterator[SpikeTrace]) -> StepRecord:
    """The record of a balanced graph's traces, all populations, one batch after another.

    Raises:
        HardwareError: no trace, or one of another graph or without a population.
    """
    senders = [name for name in graph.populations if graph.outgoing(name)]
    fan_outs = {n: np.sum([fan_out(graph, s) for s in graph.outgoing(n)], axis=0) for n in senders}
    logits, synops = [], []
    for trace in traces:
        if trace.meta.get("fingerprint") != graph.fingerprint:
            raise HardwareError(
                "the trace was recorded from another graph; give the one that was run"
            )
        if missing := [n for n in graph.populations if n not in trace.spikes]:
            raise HardwareError(
                f"the trace lacks population '{missing[0]}'; record all populations"
            )
        currents = np.cumsum(trace.spikes[graph.readout.name], axis=1, dtype=np.float64)
        steps = np.arange(1, graph.time_steps + 1)[:, None]
        logits.append(currents / (steps * graph.readout.scale))
        synops.append(np.stack([_by_step(trace.spikes[n], fan_outs[n]) for n in senders]))
    if not logits:
        raise HardwareError("no samples; record at least 1")
    depth = graph.depth[graph.readout.name]
    return StepRecord(
        logits=np.concatenate(logits),
        synops=np.concatenate(synops, axis=1),
        ahead=np.array([depth - graph.depth[name] for name in senders]),
        depth=depth,
    )


def window_energies(
    graph: SpikeGraph,
    traces: Iterable[SpikeTrace],
    steps: Sequence[np.ndarray | int],
    costs: str | CostTable = "horowitz45",
) -> list[float]:
    """Estimated energy per sample, pJ, of windows that were known to have so many steps from the start.

    Args:
        graph: balanced, whose whole windows the traces recorded, all populations.
        steps: ways to end the windows: each one number of steps for all samples, or (S,).
        costs: a table that needs no layout, or its name.

    Raises:
        HardwareError: as `hardware.energy.count_operations` and `price`.
    """
    counters: list[dict[int, OperationCounter]] = [{} for _ in steps]
    shorter: dict[int, SpikeGraph] = {}
    seen = 0
    for trace in traces:
        for way, own in zip(steps, counters, strict=True):
            here = np.asarray(way)[seen : seen + trace.samples] if np.ndim(way) else way
            here = np.broadcast_to(here, trace.samples)
            for k in map(int, np.unique(here)):
                if k not in shorter:
                    shorter[k] = replace(graph, time_steps=k)
                if k not in own:
                    own[k] = OperationCounter(shorter[k])
                own[k].add(_first_steps(shorter[k], trace, here == k))
        seen += trace.samples
    return [_mean_energy(own, costs) for own in counters]


def _first_steps(graph: SpikeGraph, trace: SpikeTrace, chosen: np.ndarray) -> SpikeTrace:
    """The chosen samples (S,) in windows as long as the graph's."""
    steps = graph.time_steps
    meta = {**trace.meta, "time_steps": steps, "fingerprint": graph.fingerprint}
    spikes = {name: sent[chosen, :steps] for name, sent in trace.spikes.items()}
    return SpikeTrace(spikes=spikes, logits=trace.logits[chosen], meta=meta)


def _mean_energy(counters: Mapping[int, OperationCounter], costs: str | CostTable) -> float:
    counts = [counter.counts for counter in counters.values()]
    total = sum(c.samples * price(c, costs).energy_pj_per_sample.value for c in counts)
    return total / sum(c.samples for c in counts)


def choose_threshold(record: StepRecord, labels: np.ndarray, *, loss: float) -> float:
    """The threshold of the margin that takes the fewest steps and keeps the accuracy.

    Args:
        record: of samples that are not those on which the accuracy is reported.
        labels: (S,) their classes.
        loss: share of the samples (not points) that may be wrong beyond those of whole windows.

    Returns:
        A margin that occurs, or infinity where every exit costs too much. Of several thresholds with
        the same mean number of steps the largest.

    Raises:
        ValueError: loss is negative or not below 1, or labels are of another number of samples.
    """
    if not 0 <= loss < 1:
        raise ValueError(f"loss={loss}; use a share from 0 to below 1")
    if labels.shape != (len(record.logits),):
        raise ValueError(f"labels have shape {labels.shape}; needs ({len(record.logits)},)")
    whole = record.logits.shape[1]
    wanted = np.count_nonzero(record.predictions(np.asarray(whole)) == labels) - loss * len(labels)
    chosen, fewest = np.inf, float(whole)
    for threshold in np.unique(record.margins[:, :-1])[::-1]:
        steps = record.exit_steps(threshold)
        right = np.count_nonzero(record.predictions(steps) == labels)
        if right >= wanted and steps.mean() < fewest:
            chosen, fewest = float(threshold), float(steps.mean())
    return chosen


def _by_step(sent: np.ndarray, fan_outs: np.ndarray) -> np.ndarray:
    """(S, T) operations of messages (S, T, *shape)."""
    return (sent != 0).reshape(*sent.shape[:2], -1) @ fan_outs
