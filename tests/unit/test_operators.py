"""Products of few events: listed or multiplied out, the same currents."""

from __future__ import annotations

import numpy as np
import pytest

from hardware.ir import Conv2d, Dense, Sparse
from hardware.ir.operators import LISTING, SPARSE_EVENTS, make_sums
from hardware.ir.synapses import AnySynapse, to_matrix


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 1.0])
@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize("kind", ["dense", "pointwise", "convolution", "listed"])
def test_few_and_many_events(kind: str, graded: bool, share: float, dtype: type) -> None:
    rng = np.random.default_rng(7)
    weight = {
        "dense": (600, 500),
        "listed": (600, 500),
        "pointwise": (96, 80, 1, 1),
        "convolution": (40, 20, 3, 3),
    }[kind]
    values = rng.integers(-8, 9, weight).astype(float)
    if kind == "listed":
        rows, columns = np.nonzero(values)
        shape, target = (500,), (600,)
        synapse: AnySynapse = Sparse(
            source="x", target="n", rows=rows, columns=columns, weight=values[rows, columns]
        )
    elif kind == "dense":
        synapse = Dense(source="x", target="n", weight=values)
        shape, target = (500,), (600,)
    else:
        pad = weight[2] // 2
        synapse = Conv2d(source="x", target="n", weight=values, padding=(pad, pad))
        shape, target = (6, 7, weight[1]), (6, 7, weight[0])
    messages = rng.random((3, *shape)) < share
    assert np.count_nonzero(values) > LISTING or kind in ("pointwise", "convolution")
    assert SPARSE_EVENTS[np.dtype(dtype).itemsize] > 0.012  # so that both ways are taken
    if graded:
        messages = messages * rng.integers(1, 9, messages.shape).astype(dtype)
    got = make_sums(synapse, shape, target, np.dtype(dtype))(messages)
    flat = messages.reshape(len(messages), -1).astype(np.float64)
    expected = flat @ to_matrix(synapse, shape, target).T
    assert got.dtype == dtype
    assert np.array_equal(got, expected)
