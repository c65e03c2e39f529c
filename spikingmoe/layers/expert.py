"""Spiking experts behind their gates, and the plain spiking MLP of the dense twin."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from spikingmoe.config import ModelConfig
from spikingmoe.config.model import Dispatch
from spikingmoe.functional.dispatch import DispatchPlan, plan_dispatch
from spikingmoe.functional.dispatch_cost import masked_is_faster
from spikingmoe.functional.gate_rows import gate_rows
from spikingmoe.functional.grouped_linear import grouped_linear
from spikingmoe.kernels import can_fuse, fused_expert_lif, fused_norm
from spikingmoe.layers.gated_norm import GatedBatchNorm
from spikingmoe.layers.linear import LinearNorm
from spikingmoe.layers.neuron import LIF, And, make_neuron
from spikingmoe.shapes import Gates, Tokens

MeanOutputs = Float[Tensor, "E D"]


class Experts(nn.Module):
    """E experts of width F, each behind its gate:

        X_e = g_e AND X;   H_e = LIF(BN1_e(W1_e X_e) g_e);   out = sum_e BN2_e(W2_e H_e) g_e

    Folded, the batch norms leave biases driven by the gate. A closed gate means no spike, no
    synaptic operation and no output of that expert.

    Attributes:
        dispatch: "masked" computes every expert on every row and is what the lowering records,
            "grouped" computes the rows that are chosen, "auto" takes the faster one. They have the
            same values and gradients, except that only "masked" has a gradient of gates that are 0:
            while gate_gradient="full" asks for it, "auto" is "masked" and "grouped" is refused.

    Shapes: x (T, B, N, D), gates (T, B, N, E) of 0 and 1 -> a current (T, B, N, D), and the mean
    of W2_e H_e over the rows that chose each expert, (E, D), 0 for an expert without rows. (Behind
    the batch norm it would be the norm's bias, whatever the expert does.)
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        experts, dim, width = config.num_experts, config.embed_dim, config.expert_width
        self.dispatch: Dispatch = config.dispatch
        self.full_gradient = config.gate_gradient == "full"
        self.gate = And()
        self.weight1 = nn.Parameter(_linear_init(experts, width, dim))
        self.norm1 = GatedBatchNorm(experts, width)
        self.neuron = make_neuron(config)
        self.weight2 = nn.Parameter(_linear_init(experts, dim, width))
        self.norm2 = GatedBatchNorm(experts, dim)

    def forward(self, x: Tokens, gates: Gates) -> tuple[Tokens, MeanOutputs]:
        if self._takes_masked(gates):
            return self._masked(x, gates)
        return self._grouped(x, gates, plan_dispatch(gates.detach().flatten(1, 2) > 0.5))

    def _takes_masked(self, gates: Gates) -> bool:
        needs_all = self.full_gradient and gates.requires_grad
        if self.dispatch == "masked":
            return True
        if self.dispatch == "auto":
            rows, elements = gates[..., 0].numel(), sum(self.weight1.shape[1:])
            return needs_all or masked_is_faster(
                rows=rows, experts=gates.shape[-1], elements=elements
            )
        if needs_all:
            raise ValueError(
                f"experts: dispatch={self.dispatch!r} has no gradient of the gates that are 0, "
                f"which gate_gradient='full' needs; use dispatch 'masked' or 'auto', or "
                f"gate_gradient 'chosen', 'margin' or 'none'"
            )
        return False

    def _nothing(self, x: Tokens, gates: Gates) -> tuple[Tokens, MeanOutputs]:
        """Zeros that depend on the inputs and parameters, whose gradients are zeros then."""
        current, means = self._masked(x[:, :0], gates[:, :0])
        return torch.zeros_like(x) + current.sum(), means

    def _masked(self, x: Tokens, gates: Gates) -> tuple[Tokens, MeanOutputs]:
        """All experts on all rows."""
        gates_ETBN1 = gates.movedim(-1, 0)[..., None]
        x_ETBND = self.gate(gates_ETBN1, x[None])
        gates_ER1 = gates_ETBN1.flatten(1, 3)
        current = self.norm1(torch.bmm(x_ETBND.flatten(1, 3), self.weight1.mT), gates_ER1)
        current = current.unflatten(1, x.shape[:3])
        hidden = self.neuron(current.movedim(1, 0)).movedim(0, 1)  # (E, T, B, N, F)
        out = self.norm2(torch.bmm(hidden.flatten(1, 3), self.weight2.mT), gates_ER1)
        open_ER1 = gates_ER1.detach()
        summed_EF = (hidden.flatten(1, 3) * open_ER1).sum(1)  # no gradient behind closed gates
        means = self._mean_outputs(summed_EF / open_ER1.sum(1).clamp(min=1.0))
        return out.sum(0).view_as(x), means

    def _mean_outputs(self, mean_hidden_EF: Tensor) -> MeanOutputs:
        return torch.bmm(self.weight2, mean_hidden_EF[..., None]).squeeze(-1)

    def _grouped(self, x: Tokens, gates: Gates, plan: DispatchPlan) -> tuple[Tokens, MeanOutputs]:
        """Each expert on the rows that chose it; the neurons of all experts at once."""
        sizes = plan.rows_per_expert
        if not any(sizes):
            return self._nothing(x, gates)
        x_RD = x.flatten(0, 2).index_select(0, plan.rows)
        gate_R = gates.flatten().index_select(0, plan.gates) if gates.requires_grad else None
        hidden_RF, out_RD = self._rows(x_RD, gate_R, plan)
        out_SD = out_RD.new_zeros(x.shape).flatten(0, 2).index_add(0, plan.rows, out_RD)
        means = [spikes.sum(0) / max(1, len(spikes)) for spikes in hidden_RF.split(sizes)]
        return out_SD.view_as(x), self._mean_outputs(torch.stack(means))

    def _rows(
        self, x_RD: Tensor, gate_R: Tensor | None, plan: DispatchPlan
    ) -> tuple[Tensor, Tensor]:
        """Hidden spikes (R, F) and outputs (R, D) of the chosen rows."""
        sizes, neuron = plan.rows_per_expert, self.neuron
        float32 = self.norm1.weight.dtype == torch.float32
        if isinstance(neuron, LIF) and neuron.has_kernel and float32 and can_fuse(x_RD):
            current_RF = grouped_linear(x_RD, self.weight1, sizes)
            hidden_RF = fused_expert_lif(
                current_RF,
                self.norm1.weight,
                self.norm1.bias,
                gate_R,
                self.norm1.moments(current_RF, sizes),
                plan,
                neuron.constants,
            )
            out_RD = grouped_linear(hidden_RF, self.weight2, sizes)
            moments = self.norm2.moments(out_RD, sizes)
            affine = (self.norm2.weight, self.norm2.bias)
            return hidden_RF, fused_norm(out_RD, *affine, moments, sizes=sizes, gates=gate_R)
        current_RF = _per_expert(self.weight1, self.norm1, _gated(x_RD, gate_R), sizes)
        hidden_RF = self._fire(_gated(current_RF, gate_R), plan)
        out_RD = _gated(_per_expert(self.weight2, self.norm2, hidden_RF, sizes), gate_R)
        return hidden_RF, out_RD.to(x_RD.dtype)

    def _fire(self, current_RF: Tensor, plan: DispatchPlan) -> Tensor:
        """Spikes of the chosen rows from their currents, (R, F)."""
        slots = plan.slots
        current = current_RF
        if slots.of_rows is not None:
            current = current_RF.new_zeros(slots.total, current_RF.shape[1])
            current = current.index_copy(0, slots.of_rows, current_RF)
        parts = current.split([sequences * steps for sequences, steps in slots.groups])
        spikes = [
            self.neuron(part.unflatten(0, group).movedim(1, 0)).movedim(0, 1).flatten(0, 1)
            for part, group in zip(parts, slots.groups, strict=True)
        ]
        hidden = spikes[0] if len(spikes) == 1 else torch.cat(spikes)
        return hidden if slots.of_rows is None else hidden.index_select(0, slots.of_rows)


class SpikingMLP(nn.Module):
    """One expert that is always on: H = LIF(BN(W1 X)), out = BN(W2 H). (T, B, N, D) -> the same."""

    def __init__(self, config: ModelConfig, width: int) -> None:
        super().__init__()
        self.up = LinearNorm(config.embed_dim, width)
        self.neuron = make_neuron(config)
        self.down = LinearNorm(width, config.embed_dim)

    def forward(self, x: Tokens) -> Tokens:
        return self.down(self.up.fire(x, self.neuron))


def _per_expert(weight: Tensor, norm: GatedBatchNorm, x: Tensor, sizes: list[int]) -> Tensor:
    """BN_e(W_e x) of rows that are ordered by expert, `sizes` of them each."""
    # Unbound once: a gradient of an indexed parameter has the size of the whole, each time.
    parts = zip(weight.unbind(), norm.unbind(), x.split(sizes), strict=True)
    return torch.cat([norm_e(x_e @ weight_e.mT) for weight_e, norm_e, x_e in parts if len(x_e)])


def _gated(rows: Tensor, gates: Tensor | None) -> Tensor:
    """Rows times their gates, which are 1: nothing to do unless the gates need a gradient."""
    return rows if gates is None else gate_rows(rows, gates)


def _linear_init(experts: int, outputs: int, inputs: int) -> Tensor:
    bound = 1 / math.sqrt(inputs)  # as torch.nn.Linear
    return torch.empty(experts, outputs, inputs).uniform_(-bound, bound)
