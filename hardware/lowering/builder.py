"""Collects populations, synapses and taps while a model is lowered."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor, nn

from hardware.errors import LoweringError
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import LIF, Input, Population, Readout, Relay
from hardware.ir.synapses import AnySynapse, Conv2d, Dense, Expert, one_to_one
from spikingmoe.layers.norse_neuron import LIF_MODULES

INPUT = "input"  # the population that sends the images
STREAM = "stream"  # the scale group of the first stage's residual stream

#: (inputs, output) of a module's forward -> what a population sends, (T, B, *shape).
View = Callable[[tuple[Tensor, ...], Tensor], Tensor]


@dataclass(frozen=True)
class Tap:
    """Where the torch model holds the spikes of a population."""

    module: str
    view: View


@dataclass
class Stream:
    """The residual stream of a stage while it is being built.

    `terms` are the synapses (without a target) whose currents it sums; `bias` is what batch norms
    have added so far, which each reader takes as its own bias. Its relays and readers share one
    integer scale: they are the scale group `group`.
    """

    shape: tuple[int, ...]
    bias: np.ndarray
    terms: list[Callable[[str], AnySynapse]] = field(default_factory=list)
    group: str = STREAM


@dataclass(frozen=True)
class Spikes:
    """What a population sends, on the way to the next layer.

    Attributes:
        population: its name.
        flat: as one token: each neuron is a channel.
    """

    population: str
    flat: bool = False


#: (builder, module, its path, what arrives) -> what leaves; see `hardware.lowering.apply`.
Rule = Callable[["Builder", Any, str, Any], "Stream | Spikes | str | None"]
Rules = Mapping[type[nn.Module], Rule]


@dataclass
class Builder:
    """The graph under construction.

    Args:
        time_steps: T.
        unrolled: give each reader of the stream its own synapses from every earlier branch (binary
            spikes only) instead of relays that pass the sum on as graded spikes.
        rules: how each type of module is lowered.

    Attributes:
        prompt: the population of the prompt that the current block sees, if any (before a block with
            cortical feedback: of the relay cells that `relay_pool` pools).
        previous: the population that the MLP or mixture of the block before reads.
    """

    time_steps: int
    unrolled: bool
    populations: dict[str, Population] = field(default_factory=dict)
    synapses: list[AnySynapse] = field(default_factory=list)
    taps: dict[str, Tap] = field(default_factory=dict)
    gate_limits: dict[str, int] = field(default_factory=dict)
    rules: Rules = field(default_factory=dict)
    prompt: str | None = None
    relay_pool: nn.Module | None = None
    previous: str | None = None
    relays: int = 0

    def add(self, population: Population, tap: Tap | None = None) -> str:
        """Add a population and, if torch has it too, where; returns its name."""
        self.populations[population.name] = population
        if tap is not None:
            self.taps[population.name] = tap
        return population.name

    def lif(
        self,
        name: str,
        shape: tuple[int, ...],
        module: nn.Module,
        path: str,
        view: View,
        bias: np.ndarray | None = None,
        scale_group: str = "",
    ) -> str:
        """A population for the neurons `module`; LoweringError if they are not our LIF."""
        if not isinstance(module, LIF_MODULES):
            raise LoweringError(
                path,
                f"{type(module).__name__} is no LIF neuron with a hard reset to zero; "
                f"use spikingmoe.layers.LIF",
            )
        population = LIF(
            name=name,
            shape=shape,
            membrane_decay=module.membrane_decay,
            threshold=np.asarray(float(module.firing_threshold)),
            bias=np.zeros(()) if bias is None else np.broadcast_to(bias, shape).copy(),
            scale_group=scale_group,
        )
        return self.add(population, Tap(path, view))

    def logic(
        self,
        name: str,
        shape: tuple[int, ...],
        role: str,
        threshold: float,
        *,
        bias: np.ndarray | float = 0.0,
        tap: Tap | None = None,
    ) -> str:
        """A memoryless population that computes with 0 and 1."""
        population = LIF(
            name=name,
            shape=shape,
            membrane_decay=0.0,
            threshold=np.asarray(float(threshold)),
            bias=np.asarray(bias, dtype=np.float64),
            role=role,
        )
        return self.add(population, tap)

    def constant(self) -> str:
        """The input that is always 1."""
        return self.add(Input(name="constant", shape=(1,), kind="constant"))

    def clock(self, step: int) -> str:
        """The input that is 1 at one step of each window."""
        return self.add(Input(name=f"clock.{step}", shape=(1,), kind="clock", clock_step=step))

    def dense(self, source: str, target: str, weight: np.ndarray) -> None:
        """All-to-all weights (n_target, n_source)."""
        self.synapses.append(Dense(source=source, target=target, weight=weight))

    def token_wise(
        self, source: str, target: str, weight: np.ndarray, expert: Expert | None = None
    ) -> None:
        """The same weights (C_out, C_in) at every position of a map: a 1x1 convolution."""
        self.synapses.append(token_synapse(source, target, weight, expert))

    def direct(self, source: str, target: str, weight: float = 1.0) -> None:
        """Neuron to neuron."""
        n = int(np.prod(self.populations[source].shape))
        self.synapses.append(one_to_one(source, target, n, weight))

    def stream_term(self, stream: Stream, term: Callable[[str], AnySynapse]) -> None:
        """Add a branch's output to the stream; `term` makes its synapse onto a given target."""
        stream.terms.append(term)

    def relay_stream(self, stream: Stream) -> None:
        """End of a branch: with relays, sum what has come together and start anew from the sum."""
        if self.unrolled:
            return
        name = self.add(
            Relay(name=f"stream.{self.relays}", shape=stream.shape, scale_group=stream.group)
        )
        self.relays += 1
        self.synapses.extend(term(name) for term in stream.terms)
        n = int(np.prod(stream.shape))
        stream.terms = [lambda target, name=name: one_to_one(name, target, n)]

    def read_stream(
        self, stream: Stream, name: str, module: nn.Module, path: str, view: View
    ) -> str:
        """A LIF population that reads the stream: X = LIF(U)."""
        reader = self.lif(
            name, stream.shape, module, path, view, bias=stream.bias, scale_group=stream.group
        )
        self.synapses.extend(term(reader) for term in stream.terms)
        return reader

    def readout(self, name: str, bias: np.ndarray) -> str:
        """The readout of the logits."""
        return self.add(Readout(name=name, shape=bias.shape, bias=bias))

    def graph(self) -> SpikeGraph:
        """What has been built, validated."""
        return SpikeGraph(
            populations=self.populations,
            synapses=tuple(self.synapses),
            time_steps=self.time_steps,
            gate_limits=self.gate_limits,
        )


def as_stream(arriving: Stream | Spikes, path: str) -> Stream:
    """What arrives at a layer that reads currents; LoweringError if it is spikes."""
    if not isinstance(arriving, Stream):
        raise LoweringError(
            path, "reads currents and gets spikes; put a Convolution, LinearNorm or Stem before it"
        )
    return arriving


def as_spikes(arriving: Stream | Spikes, path: str) -> Spikes:
    """What arrives at a layer that reads spikes; LoweringError if it is currents."""
    if not isinstance(arriving, Spikes):
        raise LoweringError(
            path,
            "reads spikes and gets real-valued currents, which nothing sends; put a LIF before it",
        )
    return arriving


def token_synapse(
    source: str, target: str, weight: np.ndarray, expert: Expert | None = None
) -> Conv2d:
    """Weights (C_out, C_in) applied at every position."""
    return Conv2d(source=source, target=target, weight=weight[:, :, None, None], expert=expert)
