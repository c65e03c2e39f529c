"""CPU models of Lava's own synapse processes that send what Lava's models send, and faster.

Lava's Dense and Sparse copy the active columns out of the whole matrix at every step, its Conv multiplies
out every kernel position in int64 or float64 one by one. These compute with the operators of
`hardware.ir`: nothing where nothing arrives, only the active columns where few neurons are active, a
matrix product else. In floating point the order of a sum may differ, as it does between backends; in
fixed point all sums are exact.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from hardware.ir.arithmetic import shift
from hardware.ir.number_formats import EXACT_FLOAT32, largest_row_sum
from hardware.ir.operators import Operator, make_sums
from hardware.ir.synapses import AnySynapse, Conv2d, Dense, Shape, Sparse
from hardware.lava.compat import lava_imports

with lava_imports():
    from lava.proc.conv import models as conv
    from lava.proc.conv import utils as conv_utils
    from lava.proc.conv.process import Conv as LavaConv
    from lava.proc.dense import models as dense
    from lava.proc.dense.process import Dense as LavaDense
    from lava.proc.sparse import models as sparse
    from lava.proc.sparse.process import Sparse as LavaSparse
    from lava.utils.weightutils import clip_weights, truncate_weights

#: A synapse with the shapes of its source and its target.
Wiring = tuple[AnySynapse, Shape, Shape]


class _Fast(ABC):
    """Replaces `run_spk` of a stock model: the currents of a message are sent one step later."""

    s_in: Any  # these are the stock model's
    a_out: Any
    num_message_bits: Any
    proc_params: Any
    is_fixed: bool
    _operator: Operator | None = None

    @abstractmethod
    def wiring(self) -> Wiring:
        """The synapse that the stock model's weights describe."""

    def finish(self, currents: np.ndarray) -> np.ndarray:
        """From exact sums to what the stock model sends."""
        return currents

    def run_spk(self) -> None:
        if self._operator is None:
            self._operator, self._buffer = self._prepared()
        self.a_out.send(self._buffer)
        message = self.s_in.recv()
        if self.num_message_bits.item() == 0:
            message = message.astype(bool)
        currents = self._operator(message[None])[0].reshape(self.a_out.shape)
        self._buffer = self.finish(currents)

    def _prepared(self) -> tuple[Operator, np.ndarray]:
        synapse, source, target = self.wiring()
        small = self.num_message_bits.item() == 0 and largest_row_sum(synapse) < EXACT_FLOAT32
        dtype = np.dtype(np.float32 if self.is_fixed and small else np.float64)
        return make_sums(synapse, source, target, dtype), np.zeros(self.a_out.shape)


class _FastDense(_Fast):
    weights: Any

    def wiring(self) -> Wiring:
        synapse = Dense(source="", target="", weight=_stored(self))
        return synapse, (self.weights.shape[1],), (self.weights.shape[0],)

    def finish(self, currents: np.ndarray) -> np.ndarray:
        return shift(currents, self.proc_params.get("weight_exp", 0)) if self.is_fixed else currents


class _FastSparse(_FastDense):
    def wiring(self) -> Wiring:
        entries = _stored(self).tocoo()
        synapse = Sparse(
            source="", target="", rows=entries.row, columns=entries.col, weight=entries.data
        )
        return synapse, (self.weights.shape[1],), (self.weights.shape[0],)


class _FastConv(_Fast):
    weight: Any
    stride: Any
    padding: Any
    dilation: Any
    groups: Any

    def wiring(self) -> Wiring:
        # Lava convolves (flipped kernels) and orders (out, y, x, in); the graph correlates.
        weight = np.ascontiguousarray(self.weight.transpose(0, 3, 1, 2)[:, :, ::-1, ::-1])
        synapse = Conv2d(
            source="",
            target="",
            weight=weight,
            stride=_pair(self.stride),
            padding=_pair(self.padding),
            dilation=_pair(self.dilation),
            groups=int(self.groups[0]),
        )
        return synapse, self.s_in.shape, self.a_out.shape

    def finish(self, currents: np.ndarray) -> np.ndarray:
        if not self.is_fixed:
            return currents
        return np.asarray(conv_utils.signed_clamp(currents.astype(np.int64), bits=24))


def _stored(model: Any) -> Any:
    """Weights as the stock model uses them: clipped and rounded in fixed point."""
    if not model.is_fixed:
        return model.weights
    params = model.proc_params
    sign_mode = params["sign_mode"]
    clipped = clip_weights(model.weights, sign_mode, num_bits=8)
    return truncate_weights(clipped, sign_mode, params.get("num_weight_bits", 8))


def _pair(values: np.ndarray) -> tuple[int, int]:
    first, second = (int(v) for v in values)
    return first, second


def _fast(mixin: type, stock: type, *, is_fixed: bool) -> Any:
    """`stock` with the arithmetic of `mixin`; ports and variables stay its own."""
    members: dict[str, Any] = {
        "implements_process": stock.implements_process,  # type: ignore[attr-defined]
        "implements_protocol": stock.implements_protocol,  # type: ignore[attr-defined]
        "is_fixed": is_fixed,
        "__module__": __name__,
    }
    return type(f"Fast{stock.__name__}", (mixin, stock), members)


FAST_FLOAT: dict[Any, Any] = {
    LavaDense: _fast(_FastDense, dense.PyDenseModelFloat, is_fixed=False),
    LavaSparse: _fast(_FastSparse, sparse.PySparseModelFloat, is_fixed=False),
    LavaConv: _fast(_FastConv, conv.PyConvModelFloat, is_fixed=False),
}
FAST_FIXED: dict[Any, Any] = {
    LavaDense: _fast(_FastDense, dense.PyDenseModelBitAcc, is_fixed=True),
    LavaSparse: _fast(_FastSparse, sparse.PySparseModelBitAcc, is_fixed=True),
    LavaConv: _fast(_FastConv, conv.PyConvModelFixed, is_fixed=True),
}
