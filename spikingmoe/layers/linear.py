"""Token-wise linear maps with batch norm, and the batch norm of gated experts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

MIN_ROWS = 16


class LinearNorm(nn.Module):
    """y = BN(W x) on the last axis; statistics over all other axes. (..., D_in) -> (..., D_out)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=False)
        self.norm = nn.BatchNorm1d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y = self.linear(x)
        return self.norm(y.flatten(0, -2)).view_as(y)


class GatedBatchNorm(nn.Module):
    """Batch norm of E experts over the rows that their gates chose; its affine result times the gate.

        y = g * (gamma * (x - mean) / sqrt(var + eps) + beta),  mean and var over rows with g = 1

    With fewer than 16 such rows an expert uses its running statistics and does not update them.

    Shapes: x (E, rows, F), gates (E, rows, 1) -> (E, rows, F). x must be 0 where the gate is.
    """

    def __init__(
        self, experts: int, features: int, *, eps: float = 1e-5, momentum: float = 0.1
    ) -> None:
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(experts, features))
        self.bias = nn.Parameter(torch.zeros(experts, features))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.register_buffer("running_mean", torch.zeros(experts, features))
        self.register_buffer("running_var", torch.ones(experts, features))

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        mean, var = self.running_mean, self.running_var
        if self.training:
            mean, var = self._statistics(x, gates.detach())
        scale = self.weight * torch.rsqrt(var + self.eps)
        shift = self.bias - mean * scale
        return (x * scale[:, None] + shift[:, None]) * gates

    def _statistics(self, x: Tensor, gates: Tensor) -> tuple[Tensor, Tensor]:
        rows = gates.sum(dim=1)  # (E, 1)
        enough = rows >= MIN_ROWS
        count = rows.clamp(min=1.0)
        mean = x.sum(dim=1) / count  # x is zero where the gate is
        centred = (x - mean[:, None]) * gates
        var = centred.square().sum(dim=1) / count
        with torch.no_grad():
            step = (self.momentum * enough).to(self.running_mean)
            unbiased = var * (rows / (rows - 1).clamp(min=1.0))
            self.running_mean.lerp_(mean, step.expand_as(mean))
            self.running_var.lerp_(unbiased, step.expand_as(var))
        return (
            torch.where(enough, mean, self.running_mean),
            torch.where(enough, var, self.running_var),
        )
