"""Token-wise linear maps with batch norm."""

from __future__ import annotations

from torch import Tensor, nn


class LinearNorm(nn.Module):
    """y = BN(W x) on the last axis; statistics over all other axes. (..., D_in) -> (..., D_out)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=False)
        self.norm = nn.BatchNorm1d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return self.norm(y.flatten(0, -2)).view_as(y)
