"""Batch norm and neurons of all experts, on the rows that chose them, as one operation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from spikingmoe.functional.dispatch import DispatchPlan
from spikingmoe.kernels.backends import backend_of
from spikingmoe.kernels.constants import NeuronConstants, Sequences
from spikingmoe.kernels.norm import Moments, affine_map, norm_backward


def fused_expert_lif(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    gates: Tensor | None,
    moments: Moments,
    plan: DispatchPlan,
    neurons: NeuronConstants,
) -> Tensor:
    """Spikes (R, F) of LIF(g BN_e(g x)) for gates g that are all 1.

    The neurons of one expert and token run from its first to its last choice; in between, at steps
    without a current, the membrane decays and nothing is computed.

    Args:
        x: (R, F), W1_e X of the plan's rows.
        weight, bias: (E, F), the experts' norms.
        gates: (R,) of 1, whose gradient is wanted; or None.
        moments: (E, F) each.
    """
    return _ExpertLif.apply(x, weight, bias, gates, moments, plan, neurons)  # type: ignore[return-value]


class _ExpertLif(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        gates: Tensor | None,
        moments: Moments,
        plan: DispatchPlan,
        neurons: NeuronConstants,
    ) -> Tensor:
        x = x.contiguous()
        scale, shift = affine_map(weight, bias, moments)
        ctx.save_for_backward(x, weight, scale, shift)
        ctx.moments, ctx.plan, ctx.neurons, ctx.gated = moments, plan, neurons, gates is not None
        return backend_of(x).sequences_forward(x, (scale, shift), _sequences(plan), neurons)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale, shift = ctx.saved_tensors
        moments: Moments = ctx.moments
        plan: DispatchPlan = ctx.plan
        backend = backend_of(x)
        gated = ctx.gated and ctx.needs_input_grad[3]
        grad, sum_grad, sum_grad_x, grad_gates = backend.sequences_backward(
            x,
            grads[0].contiguous(),
            (scale, shift, moments.mean.float()),
            _sequences(plan),
            ctx.neurons,
            gated=gated,
        )
        norm_backward(grad, x, scale, moments, sum_grad, sum_grad_x, plan.rows_per_expert, grad)
        if grad_gates is not None:  # the gate before the weights: d (W1 g X) / dg = x
            grad_gates += backend.row_products(grad, x)
        grad_weight = (sum_grad_x * moments.rstd).to(weight.dtype)
        return grad, grad_weight, sum_grad.to(weight.dtype), grad_gates, None, None, None


def _sequences(plan: DispatchPlan) -> Sequences:
    return Sequences(
        first=plan.first_sequence,
        starts=plan.starts,
        gaps=plan.gaps,
        per_expert=plan.sequences_per_expert,
        longest=plan.window,
    )
