"""The in-place neurons of whole populations are `lif_step`, number for number."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware.ir import LIF
from hardware.ir.arithmetic import MAX_ACCUMULATED, MAX_V, lif_step
from hardware.ir.neurons import Neurons

SHAPE = (3, 2)


def population(decay: float, bias: np.ndarray, threshold: float) -> LIF:
    return LIF(
        name="p", shape=SHAPE, membrane_decay=decay, bias=bias, threshold=np.asarray(threshold)
    )


@given(
    seed=st.integers(0, 2**31),
    decay=st.sampled_from([0.0, 0.25, 0.5, 0.9, 1023 / 1024, 1.0]),
    largest=st.sampled_from([5, 3_000, 60_000, MAX_ACCUMULATED]),
    has_bias=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_integers(seed, decay, largest, has_bias):
    """A window of integers, also where membranes saturate."""
    rng = np.random.default_rng(seed)
    bias = rng.integers(-largest // 4, largest // 4 + 1, SHAPE) * has_bias
    threshold = int(rng.integers(1, largest + 1))
    lif = population(decay, bias.astype(np.int64), threshold)
    reach = largest - int(np.abs(bias).max())
    current = rng.integers(-reach, reach + 1, (9, *SHAPE)).astype(np.float64)
    current[rng.random(9) < 0.5] = reach  # drives membranes up
    neurons = Neurons(lif, np.dtype(np.float64), fixed=True, reach=reach)
    v = np.zeros(SHAPE)
    mine, used = np.zeros(SHAPE), current.copy()
    for step in range(9):
        _, spikes, v = lif_step(lif, v, current[step], fixed=True)
        sent = np.empty(SHAPE, bool)
        neurons.step(mine, used[step], sent)
        np.testing.assert_array_equal(sent, spikes)
        np.testing.assert_array_equal(mine, v)
    if neurons.is_memoryless:
        at_once = np.empty(current.shape, bool)
        neurons.forget(current.copy(), at_once)
        for step in range(9):
            _, spikes, _ = lif_step(lif, np.zeros(SHAPE), current[step], fixed=True)
            np.testing.assert_array_equal(at_once[step], spikes)


@given(seed=st.integers(0, 2**31), decay=st.sampled_from([0.0, 0.3, 0.5, 1.0]))
@settings(max_examples=30, deadline=None)
def test_real_numbers(seed, decay):
    """The same sums in the same order: not one bit differs."""
    rng = np.random.default_rng(seed)
    lif = population(decay, rng.normal(size=SHAPE), 0.7)
    neurons = Neurons(lif, np.dtype(np.float64), fixed=False, reach=0.0)
    v, mine = np.zeros(SHAPE), np.zeros(SHAPE)
    for current in rng.normal(size=(6, *SHAPE)):
        _, spikes, v = lif_step(lif, v, current, fixed=False)
        sent = np.empty(SHAPE, bool)
        neurons.step(mine, current.copy(), sent)
        np.testing.assert_array_equal(sent, spikes)
        np.testing.assert_array_equal(mine, v)


@pytest.mark.parametrize(
    ("decay", "reach", "clips"),
    [(0.5, 65_535, False), (0.5, 65_536, True), (0.0, 131_071, False), (1.0, 1, True)],
)
def test_clipping_is_left_out_only_where_no_membrane_saturates(decay, reach, clips):
    """Sums of a geometric series: with half of it kept, twice the input is the limit."""
    lif = population(decay, np.zeros(SHAPE, np.int64), 10)
    neurons = Neurons(lif, np.dtype(np.float64), fixed=True, reach=reach)
    assert neurons.saturates is clips
    v = np.zeros(SHAPE)
    for _ in range(60):
        neurons.charge(v, np.full(SHAPE, float(reach)))
    assert v.max() <= MAX_V
