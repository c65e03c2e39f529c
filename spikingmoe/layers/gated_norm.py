"""Batch norm of gated experts: statistics over the rows that the gates chose."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from spikingmoe.kernels import Moments, own_moments

MIN_ROWS = 16


@dataclass(frozen=True)
class RowNorm:
    """The batch norm of one expert, for the rows that chose it alone: (rows, F) -> the same.

    Attributes:
        running_mean, running_var: (F,) views of the buffers, updated while training.
        scale, shift: (F,) the affine map of the running statistics as they were at first.
        momentum: None in evaluation, which uses the running statistics.
    """

    running_mean: Tensor
    running_var: Tensor
    weight: Tensor
    bias: Tensor
    scale: Tensor
    shift: Tensor
    momentum: float | None
    eps: float

    def __call__(self, x: Float[Tensor, "rows F"]) -> Float[Tensor, "rows F"]:
        if self.momentum is None or len(x) < MIN_ROWS:
            return x * self.scale + self.shift
        statistics = (self.running_mean, self.running_var)
        affine = (self.weight, self.bias)
        return F.batch_norm(x, *statistics, *affine, True, self.momentum, self.eps)


class GatedBatchNorm(nn.Module):
    """Batch norm of E experts over the rows that their gates chose; its affine result times the gate.

        y = g * (gamma * (x - mean) / sqrt(var + eps) + beta),  mean and var over rows with g = 1

    With fewer than 16 such rows an expert uses its running statistics and does not update them.
    `forward` takes all rows of all experts; `unbind` gives norms that take the chosen rows of one
    expert and leave the product with the gate to the caller, `moments` what a fused kernel needs.

    Shapes: x (E, rows, F), gates (E, rows, 1) -> (E, rows, F).
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
        scale, shift = self._affine(mean, var)
        return (x * scale[:, None] + shift[:, None]) * gates

    def unbind(self) -> list[RowNorm]:
        """One norm per expert for the rows that chose it, with the same parameters and buffers."""
        scale, shift = self._affine(self.running_mean.clone(), self.running_var.clone())
        tensors = (self.running_mean, self.running_var, self.weight, self.bias, scale, shift)
        momentum = self.momentum if self.training else None
        return [
            RowNorm(*own, momentum=momentum, eps=self.eps)
            for own in zip(*(tensor.unbind() for tensor in tensors), strict=True)
        ]

    def moments(self, x: Tensor, sizes: list[int]) -> Moments:
        """What each expert normalises its rows with; running statistics are updated while training.

        Args:
            x: (R, F), ordered by expert. sizes: rows of each.
        """
        mean, var = self.running_mean.clone().double(), self.running_var.clone().double()
        own = tuple(self.training and size >= MIN_ROWS for size in sizes)
        for expert, x_e in enumerate(x.split(sizes)):
            if own[expert]:
                found = own_moments(x_e, self.eps)
                mean[expert], var[expert] = found.mean, found.var
                unbiased = found.var * (len(x_e) / (len(x_e) - 1))
                self.running_mean[expert].lerp_(found.mean.to(self.running_mean), self.momentum)
                self.running_var[expert].lerp_(unbiased.to(self.running_var), self.momentum)
        return Moments(mean=mean, var=var, eps=self.eps, own=own)

    def _affine(self, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor]:
        scale = self.weight * torch.rsqrt(var + self.eps)
        return scale, self.bias - mean * scale

    def _statistics(self, x: Tensor, gates: Tensor) -> tuple[Tensor, Tensor]:
        rows = gates.sum(dim=1)  # (E, 1)
        enough = rows >= MIN_ROWS
        count = rows.clamp(min=1.0)
        # Without the gate a row has no part in the statistics, and no gradient from them.
        mean = (x * gates).sum(dim=1) / count
        centred = (x - mean[:, None]) * gates
        var = centred.square().sum(dim=1) / count
        with torch.no_grad():
            step = self.momentum * enough.to(self.running_mean)
            unbiased = var * (rows / (rows - 1).clamp(min=1.0))
            self.running_mean.lerp_(mean, step.expand_as(mean))
            self.running_var.lerp_(unbiased, step.expand_as(var))
        return (
            torch.where(enough, mean, self.running_mean),
            torch.where(enough, var, self.running_var),
        )
