"""Wider random graphs than `graphs.cases`: what lowering makes, and what it could make.

Kernels with strides, dilations and paddings, groups beyond Loihi's and Lava's fields, decays of every
multiple of 1/4096, loops with delays, windows of 1 to 16 steps. Numbers stay dyadic: sums are exact.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

import numpy as np
from graphs import Case, Maker
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from hardware.ir import LIF, Conv2d, Dense, Input, Readout, Sparse, SpikeGraph
from hardware.ir.nodes import Population, is_graded, size
from hardware.ir.synapses import AnySynapse, conv_output_shape

#: How many random graphs and models a property is tried on: few by default, `make torture` asks for more.
TRIALS = int(os.environ.get("SPIKINGMOE_TRIALS", "0"))

MANY_GROUPS = (127, 128, 130, 256)  # around the int8 and uint8 fields of stock processes


def examples(count: int) -> settings:
    """`count` random examples, a hundred times SPIKINGMOE_TRIALS if that is set."""
    return settings(
        max_examples=100 * TRIALS or count,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )


@st.composite
def wide_cases(
    draw: st.DrawFn,
    *,
    arithmetic: str | None = None,
    least: int = 1,
    most: int = 6,
    longest_loop: int = 3,
) -> Case:
    """Balanced graphs of `least` to `most` hidden populations and up to 3 samples for each.

    Args:
        longest_loop: largest delay of a population's loop onto itself.
    """
    arithmetic = arithmetic or draw(st.sampled_from(["float", "fixed"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    maker = WideMaker(draw, arithmetic, rng, longest_loop)
    return maker.case(draw(st.integers(least, most)), most_samples=3)


class WideMaker(Maker):
    """`Maker` with the rare shapes and numbers."""

    def __init__(
        self, draw: st.DrawFn, arithmetic: str, rng: np.random.Generator, longest_loop: int
    ) -> None:
        super().__init__(draw, arithmetic, rng)
        self.time_steps = draw(st.sampled_from([1, 2, 3, 5, 8, 16]))
        self.longest_loop = longest_loop

    def add(self, population: Population) -> None:
        if population.name == "data":
            shape = self.draw(st.sampled_from([(4, 3, 2), (3, 3, 4), (5, 1, 2), (2, 2, 6)]))
            population = replace(population, shape=shape)
        super().add(population)

    def lif(self, name: str, shape: tuple[int, ...]) -> LIF:
        decay = self.draw(st.sampled_from([0, 1, 2048, 4095, 4096]) | st.integers(0, 4096))
        return replace(super().lif(name, shape), membrane_decay=decay / 4096)

    def convolution(self, source: Population, target: str) -> Conv2d:
        synapse, _ = random_convolution(self.draw, self.rng, source.shape)
        weight, exponent = self.weights(synapse.weight.shape, source)
        return replace(synapse, source=source.name, target=target, weight=weight, exponent=exponent)

    def loop(self, name: str) -> None:
        """Relays pass on (their sums must not grow); neurons also excite and inhibit each other."""
        population = self.populations[name]
        delay = self.draw(st.integers(1, self.longest_loop))
        if isinstance(population, LIF):
            synapse = self.connection(population, population)
            self.synapses.append(replace(synapse, delay=delay))
        else:
            super().loop(name)
            self.synapses[-1] = replace(self.synapses[-1], delay=delay)


def random_convolution(
    draw: st.DrawFn, rng: np.random.Generator, shape: tuple[int, ...], *, groups: int | None = None
) -> tuple[Conv2d, tuple[int, ...]]:
    """A convolution (integer weights) over maps of `shape`, and the shape that it gives."""
    channels = shape[2]
    divisors = [n for n in range(1, channels + 1) if channels % n == 0]
    groups = groups or draw(st.sampled_from(divisors))
    pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
    synapse = Conv2d(
        source="source",
        target="target",
        weight=rng.integers(
            -9,
            10,
            (groups * draw(st.integers(1, 2)), channels // groups, *draw(pairs)),
        ),
        stride=draw(pairs),
        dilation=draw(pairs),
        padding=draw(st.tuples(st.integers(0, 3), st.integers(0, 3))),
        groups=groups,
    )
    out = conv_output_shape(shape, synapse)
    if min(out) < 1:  # the kernel reaches beyond the map: one position less does it
        synapse = replace(synapse, dilation=(1, 1), padding=(2, 2))
        out = conv_output_shape(shape, synapse)
    return synapse, out


@dataclass(frozen=True)
class One:
    """A graph of one synapse, with messages (rows, *source shape) for it."""

    graph: SpikeGraph
    messages: np.ndarray

    @property
    def synapse(self) -> AnySynapse:
        """From `source` to `target`."""
        return self.graph.synapses[0]

    def __repr__(self) -> str:
        ends = [p.shape for p in self.graph.populations.values()]
        return (
            f"One({self.graph.arithmetic}, {type(self.synapse).__name__}, {ends}, {self.synapse})"
        )


@st.composite
def one_synapse(draw: st.DrawFn, *, arithmetic: str | None = None) -> One:
    """Every kind of synapse: convolutions (up to 256 groups), dense, sparse, one-to-one, empty."""
    fixed = (arithmetic or draw(st.sampled_from(["float", "fixed"]))) == "fixed"
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kind = draw(st.sampled_from(["conv", "many groups", "dense", "sparse", "one-to-one"]))
    source = Input(name="source", shape=(4, 3, 2), kind=draw(st.sampled_from(["graded", "binary"])))
    target = Readout(name="target", shape=(5,), bias=np.asarray(0 if fixed else 0.0))
    if kind in ("conv", "many groups"):
        groups = draw(st.sampled_from(MANY_GROUPS)) if kind == "many groups" else None
        channels = groups or draw(st.integers(1, 6))
        source = replace(source, shape=(*draw(st.tuples(*[st.integers(1, 6)] * 2)), channels))
        synapse, shape = random_convolution(draw, rng, source.shape, groups=groups)
        target = replace(target, shape=shape)
    else:
        if kind == "one-to-one":
            target = replace(target, shape=source.shape)
        synapse = _listed(draw, rng, size(source), size(target), kind)
    weight = synapse.weight * draw(st.sampled_from([0, 1, 1, 1]))
    exponent = draw(st.integers(-8, 7)) if fixed else 0
    graph = SpikeGraph(
        populations={"source": source, "target": target},
        synapses=(replace(synapse, weight=2 * weight if fixed else weight / 8, exponent=exponent),),
        time_steps=1,
        arithmetic="fixed" if fixed else "float",
    )
    shape = (draw(st.integers(1, 4)), *source.shape)
    sent = rng.random(shape) < draw(st.sampled_from([0.0, 0.02, 0.3, 1.0]))
    messages = sent * rng.integers(-127, 128, shape) if is_graded(source) else sent
    return One(graph, messages.astype(np.float64))


def _listed(
    draw: st.DrawFn, rng: np.random.Generator, n_in: int, n_out: int, kind: str
) -> AnySynapse:
    if kind == "dense":
        return Dense(source="source", target="target", weight=rng.integers(-9, 10, (n_out, n_in)))
    if kind == "one-to-one":
        order = rng.permutation(n_in)
        rows, columns = order, order
    else:
        pairs = rng.choice(n_in * n_out, draw(st.integers(0, n_in * n_out)), replace=False)
        rows, columns = pairs // n_in, pairs % n_in
    return Sparse(
        source="source",
        target="target",
        rows=rows,
        columns=columns,
        weight=rng.integers(-9, 10, len(rows)),
    )
