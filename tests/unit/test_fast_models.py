"""Our models of Lava's synapse processes send, message for message, what Lava's own models send."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from hardware.lava.compat import lava_imports

pytest.importorskip("lava.magma", reason="lava-nc is not installed", exc_type=ImportError)

from hardware.lava.execute import FIXED, FLOAT
from hardware.lava.fast_models import FAST_FIXED, FAST_FLOAT

with lava_imports():
    from lava.proc.conv.process import Conv
    from lava.proc.dense.process import Dense
    from lava.proc.sparse.process import Sparse
    from lava.utils.weightutils import SignMode

ARITHMETICS = pytest.mark.parametrize("fixed", [False, True], ids=["float", "fixed"])
MESSAGES = pytest.mark.parametrize("bits", [0, 24], ids=["spikes", "graded"])


class Port:
    """Gives the messages of a list and keeps what is sent."""

    def __init__(self, shape, messages=()):
        self.shape, self.messages, self.sent = shape, list(messages), []

    def recv(self):
        return self.messages.pop(0)

    def send(self, values):
        self.sent.append(np.array(values))


def run_model(model_class, messages, target, params, variables):
    """What a model sends when it is given these messages."""
    model = model_class(params)
    model.s_in, model.a_out = Port(messages[0].shape, messages), Port(target)
    for name, value in variables.items():
        setattr(model, name, value)
    for _ in messages:
        model.run_spk()
    return model.a_out.sent


def compare(process, messages, target, params, variables, *, fixed):
    stock, fast = (FIXED, FAST_FIXED) if fixed else (FLOAT, FAST_FLOAT)
    expected = run_model(stock[process], messages, target, params, variables)
    got = run_model(fast[process], messages, target, params, variables)
    for one, two in zip(expected, got, strict=True):
        assert np.array_equal(one, two)
    assert any(np.any(values) for values in expected)


def make_messages(shape, bits, rng):
    """Silence, few, many, all neurons."""
    spikes = [rng.random(shape) < share for share in (0.0, 0.04, 0.5, 1.0, 0.0, 0.1)]
    return [s * rng.integers(-90, 90, shape) for s in spikes] if bits else spikes


@ARITHMETICS
@MESSAGES
@pytest.mark.parametrize("exponent", [-2, 0, 3])
@pytest.mark.parametrize("process", [Dense, Sparse])
def test_dense_and_sparse(process, exponent, bits, fixed):
    """Weights beyond the range and odd ones too: both are clipped and rounded alike."""
    rng = np.random.default_rng(2)
    weights = rng.integers(-300, 300, (600, 500))
    values = weights.astype(np.int32) if fixed else weights / 64  # dyadic: sums are exact
    variables = {
        "weights": values if process is Dense else csr_matrix(values),
        "a_buff": np.zeros(600, values.dtype),
        "num_message_bits": np.array([bits]),
    }
    params = {"weight_exp": exponent, "num_weight_bits": 8, "sign_mode": SignMode.MIXED}
    messages = make_messages((500,), bits, rng)
    compare(process, messages, (600,), params, variables, fixed=fixed)


@ARITHMETICS
@MESSAGES
@pytest.mark.parametrize(
    ("groups", "kernel", "stride", "padding"),
    [
        (1, (1, 1), (1, 1), (0, 0)),
        (1, (3, 3), (2, 1), (1, 1)),
        (4, (3, 2), (1, 1), (1, 0)),
        (2, (3, 3), (1, 1), (1, 1)),
    ],
    ids=["pointwise", "strided", "depthwise", "grouped"],
)
def test_convolution(groups, kernel, stride, padding, bits, fixed):
    rng = np.random.default_rng(3)
    weight = rng.integers(-100, 100, (8, *kernel, 4 // groups))
    options = {"stride": stride, "padding": padding, "dilation": (1, 1)}
    process = Conv(weight=weight, input_shape=(6, 5, 4), groups=groups, **options)
    target = process.a_out.shape
    weight = weight.astype(np.int32) if fixed else weight / 64
    variables = {
        "weight": weight,
        "a_buf": np.zeros(target, weight.dtype),
        "kernel_size": np.array(kernel, np.int8),
        "groups": np.array([groups], np.int8),
        "num_message_bits": np.array([bits], np.int8),
        **{name: np.array(value, np.int8) for name, value in options.items()},
    }
    compare(Conv, make_messages((6, 5, 4), bits, rng), target, {}, variables, fixed=fixed)
