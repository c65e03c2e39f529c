"""Loihi's LIF rule on whole numbers held by floats, with a surrogate derivative in real units."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hardware.ir.arithmetic import ACTIVATION_SHIFT, DECAY_UNITY, MAX_V

UNIT = 2**ACTIVATION_SHIFT
#: u - threshold in real units -> spikes, with a derivative of its own.
SpikeFunction = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """The constants of a population.

    Args:
        keep: what is left of v after a step, in 1/4096.
        threshold: integers, () or (*shape).
        scale: integer units of the current per 1.0.
        surrogate: for the backward pass; none is needed without one.
    """

    keep: int
    threshold: Tensor
    scale: float
    surrogate: SpikeFunction | None = None

    def step(self, v: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
        """One step: (u, spikes as booleans) from v and the current with its bias."""
        u = torch.trunc(v * (self.keep / DECAY_UNITY)).add_(current, alpha=UNIT)
        u = u.clamp_(-MAX_V, MAX_V)
        return u, u > self.threshold * UNIT


class IntegerLIF(torch.autograd.Function):
    """Currents (T, B, *shape), bias included, to spikes of the same shape and number format.

    v is cut toward zero when it decays and clipped at +-(2^23 - 1). Backward: the surrogate of the
    membrane in real units, decay as it is without rounding, no gradient through the reset.
    """

    @staticmethod
    def forward(ctx: Any, current: Tensor, rule: Rule) -> Tensor:
        threshold = rule.threshold * UNIT
        spikes = torch.empty_like(current)
        above = torch.empty_like(current) if current.requires_grad else None
        v = torch.zeros_like(current[0])
        for t in range(len(current)):
            u, fires = rule.step(v, current[t])
            spikes[t] = fires
            if above is not None:
                torch.sub(u, threshold, out=above[t])
            v = u.masked_fill_(fires, 0.0)
        if above is not None:
            ctx.rule = rule
            ctx.save_for_backward(above)
        return spikes

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        rule: Rule = ctx.rule
        (above,) = ctx.saved_tensors
        assert rule.surrogate is not None
        with torch.enable_grad():
            distance = (above / (UNIT * rule.scale)).requires_grad_()
            sent = rule.surrogate(distance)
        (through,) = torch.autograd.grad(sent, distance, grads[0])
        decay = rule.keep / DECAY_UNITY
        for t in range(len(above) - 2, -1, -1):
            through[t] += decay * through[t + 1] * (above[t] <= 0)
        return through / rule.scale, None
