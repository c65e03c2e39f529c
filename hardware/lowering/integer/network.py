"""A fixed-point program in torch: whole numbers in floats, many samples at a time, any device.

Bit for bit the network that `hardware.ir.reference` interprets: the same number formats, in which no
sum is ever rounded, and the same rule for the membrane.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from hardware.errors import BackendError
from hardware.ir.arithmetic import check_reach, kept_share
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import LIF, Input, Population, Readout, is_graded
from hardware.ir.number_formats import number_formats
from hardware.ir.reference import Progress, check_inputs, run_meta, to_logits
from hardware.ir.synapses import AnySynapse
from hardware.lowering.integer.connection import connection
from hardware.lowering.integer.neuron import IntegerLIF, Rule, SpikeFunction
from hardware.trace import SpikeTrace

FORMATS = {np.dtype(np.float32): torch.float32, np.dtype(np.float64): torch.float64}
BATCH = 128


class IntegerNetwork(nn.Module):
    """A balanced fixed-point graph.

    Args:
        graph: in fixed point; its delays are balanced, so that steps of a window meet.
        surrogate: makes the spikes of ordinary populations differentiable.
        check: BackendError when a sum leaves the range of the target (waits for the device).

    Raises:
        BackendError: a graph in floating point, or delays that are not balanced.
    """

    def __init__(
        self, graph: SpikeGraph, *, surrogate: SpikeFunction | None = None, check: bool = True
    ) -> None:
        super().__init__()
        if graph.arithmetic != "fixed":
            raise BackendError("the integer network needs a fixed-point graph; quantise it first")
        if not graph.is_balanced:
            raise BackendError(
                "the integer network needs balanced delays; run balance_delays first"
            )
        self.graph, self.surrogate, self.check = graph, surrogate, check
        self.formats = {n: FORMATS[f] for n, f in number_formats(graph).items()}
        self.connections = {id(s): connection(graph, s) for s in graph.synapses}
        self.places = {id(s): index for index, s in enumerate(graph.synapses)}
        self.index = {name: index for index, name in enumerate(graph.order)}
        for index, synapse in enumerate(graph.synapses):
            whole = synapse.weight.astype(np.float64) * 2.0**synapse.exponent
            if not np.array_equal(whole, np.rint(whole)):
                raise BackendError(
                    f"synapse '{synapse.source}' -> '{synapse.target}': its exponent "
                    f"{synapse.exponent} floors sums; run it on the reference"
                )
            kept = torch.from_numpy(whole).to(self.formats[synapse.target])
            self.register_buffer(f"weight{index}", kept, persistent=False)
        for index, name in enumerate(graph.order):
            population = graph.populations[name]
            if isinstance(population, (LIF, Readout)):
                self._keep(f"bias{index}", population.bias, name)
            if isinstance(population, LIF):
                self._keep(f"threshold{index}", population.threshold, name)
        self.in_flight: dict[str, Tensor] = {}

    def _keep(self, key: str, values: np.ndarray, name: str) -> None:
        kept = torch.from_numpy(np.asarray(values, dtype=np.float64)).to(self.formats[name])
        self.register_buffer(key, kept, persistent=False)

    def weight(self, synapse: AnySynapse) -> Tensor:
        """Whole numbers, exponent included, in the number format of the target."""
        return self.get_buffer(f"weight{self.places[id(synapse)]}")

    def bias(self, name: str) -> Tensor:
        """Whole numbers, () or (*shape)."""
        return self.get_buffer(f"bias{self.index[name]}")

    def forward(
        self, inputs: Tensor, record: Iterable[str] = ()
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits (B, classes) in real units, and the messages (T, B, *shape) of `record`.

        Args:
            inputs: (B, T or 1, *input shape), real units.
        """
        keep = {*record, self.graph.readout.name}
        values: dict[str, Tensor] = {}
        for index, name in enumerate(self.graph.order):
            values[name] = self._messages(name, inputs, values)
            for source in list(values):
                if self.graph.last_reader[source] <= index and source not in keep:
                    del values[source]
        readout = self.graph.readout
        currents = values[readout.name].double().sum(0)
        logits = currents / (self.graph.time_steps * readout.scale)
        return logits, values

    def _messages(self, name: str, inputs: Tensor, values: dict[str, Tensor]) -> Tensor:
        population = self.graph.populations[name]
        if isinstance(population, Input):
            return self._input(population, inputs)
        arriving = self._arriving(name, values)
        current = arriving[0] if arriving else self._nothing(population, inputs)
        for more in arriving[1:]:
            current = current + more
        current = current.expand(self.graph.time_steps, *current.shape[1:])
        if any(s.source == name for s in self.graph.incoming(name)):
            return self._with_loops(name, current)
        if self.check:
            check_reach(population, int(current.detach().abs().max()))
        if isinstance(population, LIF):
            return self._spikes(name, population, current, arriving)
        return current + self.bias(name) if isinstance(population, Readout) else current

    def _arriving(self, name: str, values: dict[str, Tensor]) -> list[Tensor]:
        """What each synapse from another population brings, (T or 1, B, *shape)."""
        found = []
        for synapse in self.graph.incoming(name):
            if synapse.source != name:
                sent = values[synapse.source].to(self.formats[name])
                rows = self.connections[id(synapse)](sent.flatten(0, 1), self.weight(synapse))
                shape = self.graph.populations[name].shape
                found.append(rows.reshape(*sent.shape[:2], *shape))
        return found

    def _nothing(self, population: Population, inputs: Tensor) -> Tensor:
        shape = (1, len(inputs), *population.shape)
        return torch.zeros(shape, dtype=self.formats[population.name], device=inputs.device)

    def _input(self, population: Input, inputs: Tensor) -> Tensor:
        """(T, B, *shape), or (1, B, *shape) where each step is the same."""
        if population.kind in ("constant", "clock"):
            ticks = torch.ones(self.graph.time_steps, device=inputs.device)
            if population.kind == "clock":
                ticks = (
                    torch.arange(len(ticks), device=inputs.device) == population.clock_step
                ).float()
            steps = ticks.reshape(-1, *[1] * (1 + len(population.shape)))
            return steps.expand(-1, len(inputs), *population.shape)
        frames = inputs.transpose(0, 1)
        if population.kind == "binary":
            if not ((frames == 0) | (frames == 1)).all():
                raise BackendError(
                    f"input '{population.name}' is binary; got values besides 0 and 1"
                )
            return frames
        top = 2 ** (population.bits - 1) - 1
        return (frames.double() * population.scale).round().clamp(-top, top)

    def _rule(self, name: str, population: LIF) -> Rule:
        return Rule(
            keep=kept_share(population),
            threshold=self.get_buffer(f"threshold{self.index[name]}"),
            scale=population.scale,
            surrogate=self.surrogate,
        )

    def _spikes(
        self, name: str, population: LIF, current: Tensor, arriving: list[Tensor]
    ) -> Tensor:
        del arriving  # which synapse brought what matters to gradients alone
        rule = self._rule(name, population)
        spikes = IntegerLIF.apply(current + self.bias(name), rule)
        assert isinstance(spikes, Tensor)
        return spikes

    @torch.no_grad()
    def _with_loops(self, name: str, current: Tensor) -> Tensor:
        """Sample after sample, since loops reach from one window into the next."""
        population, steps = self.graph.populations[name], self.graph.time_steps
        loops = [s for s in self.graph.incoming(name) if s.source == name]
        longest = max(s.delay for s in loops)
        samples, shape = current.shape[1], population.shape
        stream = current.transpose(0, 1).reshape(samples * steps, *shape)
        past = self.in_flight.get(name)
        sent = torch.zeros(
            longest + len(stream), *shape, dtype=current.dtype, device=current.device
        )
        if past is not None:
            sent[:longest] = past
        v = torch.zeros_like(stream[0])
        rule = self._rule(name, population) if isinstance(population, LIF) else None
        for step in range(len(stream)):
            now = stream[step]
            for loop in loops:
                before = sent[longest + step - loop.delay][None]
                now = now + self.connections[id(loop)](before, self.weight(loop)).reshape(shape)
            if self.check:
                check_reach(population, int(now.abs().max()))
            if rule is None:
                sent[longest + step] = now
            else:
                v = torch.zeros_like(v) if step % steps == 0 else v
                u, fires = rule.step(v, now + self.bias(name))
                sent[longest + step], v = fires, u.masked_fill(fires, 0.0)
        self.in_flight[name] = sent[-longest:]
        return sent[longest:].reshape(samples, steps, *shape).transpose(0, 1)


def run_torch(
    graph: SpikeGraph,
    inputs: np.ndarray,
    *,
    record: Iterable[str] | None = None,
    progress: Progress | None = None,
    device: str | torch.device = "cpu",
) -> SpikeTrace:
    """Run samples through a fixed-point graph in torch; arguments and result as `run_reference`.

    Args:
        device: where; the integers are the same everywhere.
    """
    inputs, started = check_inputs(graph, inputs), time.perf_counter()
    keep = list(graph.populations if record is None else dict.fromkeys(record))
    parts = (inputs[start : start + BATCH] for start in range(0, len(inputs), BATCH))
    traces: list[SpikeTrace] = []
    for trace in run_torch_batches(graph, parts, record=keep, device=device):
        traces.append(trace)
        if progress:
            progress(sum(t.samples for t in traces), len(inputs))
    seconds = time.perf_counter() - started
    return SpikeTrace(
        spikes={name: np.concatenate([t.spikes[name] for t in traces]) for name in keep},
        logits=np.concatenate([t.logits for t in traces]),
        meta=run_meta(graph, f"torch-{device}", len(inputs), seconds),
    )


def run_torch_batches(
    graph: SpikeGraph,
    batches: Iterable[np.ndarray],
    *,
    record: Iterable[str] | None = None,
    device: str | torch.device = "cpu",
) -> Iterator[SpikeTrace]:
    """The trace of each batch of one stream of samples; arguments and results as `run_batches`."""
    network = IntegerNetwork(graph).to(device)
    keep = list(graph.populations if record is None else dict.fromkeys(record))
    readout = graph.readout.name
    for batch in batches:
        inputs, started = check_inputs(graph, batch), time.perf_counter()
        with torch.no_grad():
            _, values = network(torch.from_numpy(inputs).to(device), keep)
        sent = {n: _as_recorded(graph, n, values[n], len(inputs)) for n in {*keep, readout}}
        yield SpikeTrace(
            spikes={name: sent[name] for name in keep},
            logits=to_logits(graph, sent[readout]),
            meta=run_meta(graph, f"torch-{device}", len(inputs), time.perf_counter() - started),
        )


def _as_recorded(graph: SpikeGraph, name: str, messages: Tensor, samples: int) -> np.ndarray:
    """(S, T, *shape), binary messages as bool, others as integers."""
    population = graph.populations[name]
    messages = messages.expand(graph.time_steps, samples, *population.shape).transpose(0, 1)
    graded = is_graded(population) or isinstance(population, Readout)
    return messages.to(torch.int64 if graded else torch.bool).cpu().numpy()
