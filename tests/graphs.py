"""Random small graphs for property and equivalence tests; the comparison of two traces, of two graphs."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from hypothesis import strategies as st

from hardware.ir import LIF, Conv2d, Dense, Input, Readout, Relay, Sparse, SpikeGraph
from hardware.ir.nodes import Population, is_graded, size
from hardware.ir.synapses import AnySynapse, conv_output_shape
from hardware.passes.balance_delays import balance_delays
from hardware.trace import SpikeTrace


@dataclass(frozen=True)
class Case:
    """A balanced graph and samples for it (S, T, *shape)."""

    graph: SpikeGraph
    inputs: np.ndarray

    def __repr__(self) -> str:
        nodes = [f"{type(p).__name__} {p.name}{p.shape}" for p in self.graph.populations.values()]
        edges = [
            f"{type(s).__name__} {s.source}->{s.target} (delay {s.delay}, nonzero "
            f"{np.count_nonzero(s.weight)}, exponent {s.exponent})"
            for s in self.graph.synapses
        ]
        facts = f"T={self.graph.time_steps} {self.graph.arithmetic} {len(self.inputs)} samples"
        return f"Case({facts}; {', '.join(nodes)}; {', '.join(edges)})"


@st.composite
def cases(draw: st.DrawFn, *, arithmetic: str | None = None, least: int = 1, most: int = 6) -> Case:
    """Graphs of `least` to `most` populations with skips, relays, convolutions, loops and clocks.

    Numbers are dyadic or small integers, so that every sum is exact.
    """
    arithmetic = arithmetic or draw(st.sampled_from(["float", "fixed"]))
    maker = Maker(draw, arithmetic, np.random.default_rng(draw(st.integers(0, 2**32 - 1))))
    return maker.case(draw(st.integers(least, most)), most_samples=4)


class Maker:
    """Values come from `rng`, structure from `draw`, so that shrinking simplifies the structure."""

    def __init__(self, draw: st.DrawFn, arithmetic: str, rng: np.random.Generator) -> None:
        self.draw, self.rng, self.fixed = draw, rng, arithmetic == "fixed"
        self.time_steps = draw(st.integers(1, 5))
        # What neurons send before the first sample arrives is in flight in loops when it does; the
        # reference starts with empty loops. So either nothing fires by itself or there are no loops.
        self.has_loops = draw(st.booleans())
        self.populations: dict[str, Population] = {}
        self.synapses: list[AnySynapse] = []

    def case(self, count: int, *, most_samples: int) -> Case:
        """A graph of `count` hidden populations and 1 to `most_samples` samples for it."""
        graph = self.graph(count)
        shape = (self.draw(st.integers(1, most_samples)), graph.time_steps, *graph.data_input.shape)
        if graph.data_input.kind == "binary":
            return Case(graph, (self.rng.random(shape) < 0.5).astype(float))
        return Case(graph, self.rng.integers(-8, 9, shape) / 8)

    def graph(self, count: int) -> SpikeGraph:
        kind = self.draw(st.sampled_from(["binary", "graded"]))
        shape = self.draw(st.sampled_from([(4, 3, 2), (3, 3, 4), (5, 1, 2)]))
        self.add(Input(name="data", shape=shape, kind=kind, bits=4, scale=7.0))
        if not self.has_loops and self.draw(st.booleans()):
            self.add(Input(name="one", shape=(2,), kind="constant"))
        if self.draw(st.booleans()):
            step = self.draw(st.integers(0, self.time_steps - 1))
            self.add(Input(name="clock", shape=(3,), kind="clock", clock_step=step))
        for index in range(count):
            self.population(f"p{index}")
        self.readout()
        graph = SpikeGraph(
            populations=self.populations,
            synapses=tuple(self.synapses),
            time_steps=self.time_steps,
            arithmetic="fixed" if self.fixed else "float",
        )
        return balance_delays(graph)

    def add(self, population: Population) -> None:
        self.populations[population.name] = population

    def population(self, name: str) -> None:
        # A neuron that hears only a clock or a constant has no place in time: hear the data first.
        heard = [n for n in self.populations if n not in ("one", "clock")]
        source = self.populations[self.draw(st.sampled_from(heard))]
        convolves = len(source.shape) == 3 and self.draw(st.booleans())
        first = self.convolution(source, name) if convolves else None
        shape = conv_output_shape(source.shape, first) if first else (self.draw(st.integers(1, 6)),)
        is_relay = self.draw(st.integers(0, 3)) == 0
        self.add(Relay(name=name, shape=shape) if is_relay else self.lif(name, shape))
        self.synapses.append(first or self.connection(source, self.populations[name]))
        for other in self.draw(st.lists(st.sampled_from(sorted(self.populations)), max_size=2)):
            if other != name:
                self.synapses.append(
                    self.connection(self.populations[other], self.populations[name])
                )
        if self.has_loops and self.draw(st.booleans()):
            self.loop(name)

    def lif(self, name: str, shape: tuple[int, ...]) -> LIF:
        wide = self.draw(st.sampled_from([(), shape]))
        most = 0 if self.has_loops else 1
        if self.fixed:
            return LIF(
                name=name,
                shape=shape,
                membrane_decay=self.draw(st.sampled_from([0.0, 0.5, 0.875, 1.0, 3001 / 4096])),
                threshold=np.asarray(self.rng.integers(0, 60, wide)),
                bias=np.asarray(self.rng.integers(-20, 20 * most + 1, wide)),
            )
        return LIF(
            name=name,
            shape=shape,
            membrane_decay=self.draw(st.sampled_from([0.0, 0.5, 0.75, 1.0])),
            threshold=np.asarray(self.rng.integers(0, 17, wide) / 8),
            bias=np.asarray(self.rng.integers(-8, 8 * most + 1, wide) / 16),
        )

    def weights(self, shape: tuple[int, ...], source: Population) -> tuple[np.ndarray, int]:
        """Small from graded sources, so that chains of relays stay far from the overflow."""
        largest = 2 if is_graded(source) else 20
        values = self.rng.integers(-largest, largest + 1, shape)
        values = np.where(self.rng.random(shape) < 0.3, 0, values)
        if not self.fixed:
            return values / 8, 0
        exponent = self.draw(st.integers(-3, 0 if is_graded(source) else 2))
        return 2 * values, exponent

    def connection(self, source: Population, target: Population) -> AnySynapse:
        n_in, n_out = size(source), size(target)
        if self.draw(st.booleans()):
            weight, exponent = self.weights((n_out, n_in), source)
            return Dense(source=source.name, target=target.name, weight=weight, exponent=exponent)
        count = self.draw(st.integers(0, min(n_in * n_out, 12)))
        pairs = self.rng.choice(n_in * n_out, count, replace=False)
        weight, exponent = self.weights((count,), source)
        return Sparse(
            source=source.name,
            target=target.name,
            rows=pairs // n_in,
            columns=pairs % n_in,
            weight=weight,
            exponent=exponent,
        )

    def convolution(self, source: Population, target: str) -> Conv2d:
        channels = source.shape[2]
        groups = self.draw(st.sampled_from([1, channels]))
        kernel = self.draw(st.sampled_from([(1, 1), (3, 3), (3, 1)]))
        shape = (groups * self.draw(st.integers(1, 2)), channels // groups, *kernel)
        weight, exponent = self.weights(shape, source)
        return Conv2d(
            source=source.name,
            target=target,
            weight=weight,
            exponent=exponent,
            stride=self.draw(st.sampled_from([(1, 1), (2, 1), (2, 2)])),
            padding=(kernel[0] // 2, kernel[1] // 2),
            groups=groups,
        )

    def loop(self, name: str) -> None:
        """A loop that shifts by one neuron: it passes things on for ever, but sums do not grow."""
        n = size(self.populations[name])
        one, exponent = (2, -1) if self.fixed else (1.0, 0)
        index = np.arange(n - 1)
        self.synapses.append(
            Sparse(
                source=name,
                target=name,
                rows=index + 1,
                columns=index,
                weight=np.full(n - 1, one),
                exponent=exponent,
            )
        )

    def readout(self) -> None:
        bias = self.rng.integers(-3, 4, (2,))
        self.add(Readout(name="out", shape=(2,), bias=bias if self.fixed else bias / 4, scale=2.0))
        last = self.populations[[n for n in self.populations if n != "out"][-1]]
        heard = last if last.name not in ("one", "clock") else self.populations["data"]
        self.synapses.append(self.connection(heard, self.populations["out"]))
        self.synapses.append(self.connection(self.populations["data"], self.populations["out"]))


def assert_same(expected: SpikeTrace, got: SpikeTrace) -> None:
    """Fail with the first population (in the order of `expected`), step and index that differ."""
    for name, spikes in expected.spikes.items():
        other = got.spikes[name]
        assert other.shape == spikes.shape, f"'{name}': shapes {spikes.shape} and {other.shape}"
        assert other.dtype == spikes.dtype, f"'{name}': {spikes.dtype} and {other.dtype}"
        if not np.array_equal(spikes, other):
            differing = np.argwhere(spikes != other)
            sample, step, *index = differing[np.lexsort((differing[:, 1], differing[:, 0]))[0]]
            at = (sample, step, *index)
            raise AssertionError(
                f"'{name}' differs first in sample {sample} at step {step}, neuron "
                f"{tuple(map(int, index))}: {spikes[at]} and {other[at]} "
                f"({len(differing)} of {spikes.size} differ)"
            )
    assert np.array_equal(expected.logits, got.logits), f"logits {expected.logits} and {got.logits}"


def assert_same_value(found: object, expected: object, where: str) -> None:
    """Same type and, for arrays, same dtype, shape and bits."""
    if isinstance(expected, np.ndarray):
        assert isinstance(found, np.ndarray), where
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape), where
        assert found.tobytes() == expected.tobytes(), where
    else:
        assert type(found) is type(expected), where
        assert repr(found) == repr(expected), where


def assert_same_graph(found: SpikeGraph, expected: SpikeGraph) -> None:
    """Compare every field by its name."""
    assert list(found.populations) == list(expected.populations)
    assert len(found.synapses) == len(expected.synapses)
    pairs = [(found.populations[name], part) for name, part in expected.populations.items()]
    for one, other in [*pairs, *zip(found.synapses, expected.synapses, strict=True)]:
        assert type(one) is type(other)
        for field in fields(other):
            where = f"{other}: {field.name}"
            assert_same_value(getattr(one, field.name), getattr(other, field.name), where)
    for name in ("time_steps", "arithmetic", "gate_limits", "notes"):
        assert_same_value(getattr(found, name), getattr(expected, name), name)
    assert found.fingerprint == expected.fingerprint
