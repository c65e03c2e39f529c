"""The product of rows with gates that are all open."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


class _GateRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, gate):  # type: ignore[no-untyped-def]
        ctx.save_for_backward(x)
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]
        (x,) = ctx.saved_tensors
        return grad, torch.bmm(grad[:, None], x[..., None]).flatten()


def gate_rows(x: Float[Tensor, "rows F"], gate: Float[Tensor, " rows"]) -> Float[Tensor, "rows F"]:
    """x * gate for gates that are all 1: the value is x itself, and both get their gradients.

    dL/dx = dL/dy,   dL/dgate = sum_f (dL/dy)_f x_f
    """
    return _GateRows.apply(x, gate)  # type: ignore[return-value]
