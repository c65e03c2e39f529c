"""What the gates of a graph show, however long the chain behind them."""

from __future__ import annotations

import numpy as np
import pytest

from hardware.ir import LIF, Dense, Input, Readout, SpikeGraph, run_reference
from hardware.passes.bounds import check_bounds
from hardware.passes.gating import Gating
from hardware.passes.quantise import quantise

LONG = 5000
ROUTER = "router"


def chain(length: int, *, leak: int | None = None) -> SpikeGraph:
    """Gates of two experts; of each a chain of neurons onto the readout; `leak`: one that fires by itself."""
    populations: list = [
        Input(name="x", shape=(2,), kind="binary"),
        LIF(name="gate", shape=(2,), threshold=np.asarray(0.5), role="gate"),
        Readout(name="out", shape=(1,)),
    ]
    synapses = [Dense(source="x", target="gate", weight=np.eye(2))]
    for expert in range(2):
        before, weight = "gate", np.eye(2)[expert : expert + 1]
        for link in range(length):
            name = f"expert{expert}.{link}"
            bias = np.asarray(1.0 if (expert, link) == (0, leak) else 0.0)
            populations.append(LIF(name=name, shape=(1,), threshold=np.asarray(0.5), bias=bias))
            synapses.append(
                Dense(source=before, target=name, weight=weight, expert=(ROUTER, expert))
            )
            before, weight = name, np.ones((1, 1))
        synapses.append(Dense(source=before, target="out", weight=weight, expert=(ROUTER, expert)))
    return SpikeGraph(
        populations={p.name: p for p in populations},
        synapses=tuple(synapses),
        time_steps=1,
        gate_limits={ROUTER: 1},
    )


def trusted(graph: SpikeGraph) -> list[bool]:
    """Of the readout's synapses, whether their mark is true."""
    return [s.expert is not None for s in Gating(graph).trusted_marks(graph.incoming("out"))]


@pytest.mark.parametrize("length", [1, 3, LONG])
def test_a_chain_behind_a_gate_is_trusted(length: int) -> None:
    assert trusted(chain(length)) == [True, True]


@pytest.mark.parametrize("leak", [0, LONG // 2, LONG - 1])
def test_a_neuron_that_fires_by_itself_is_found_anywhere_in_the_chain(leak: int) -> None:
    assert trusted(chain(LONG, leak=leak)) == [False, True]


def test_a_long_chain_is_quantised_and_runs() -> None:
    fixed = quantise(chain(LONG // 2))
    check_bounds(fixed)
    result = run_reference(fixed, np.array([[[1, 0]], [[0, 0]]], float))
    assert result.spikes[f"expert0.{LONG // 2 - 1}"].ravel().tolist() == [True, False]
    assert not result.spikes[f"expert1.{LONG // 2 - 1}"].any()
