"""Choosing experts from scores, and keeping them equally busy."""

from __future__ import annotations

import torch
from torch import Tensor

from spikingmoe.shapes import Load, Scores


def top_k_mask(scores: Scores, k: int) -> Scores:
    """1 where fewer than `k` experts score higher (ties: the lower index wins), else 0.

    Args:
        scores: (..., E).
    """
    order = scores.sort(dim=-1, descending=True, stable=True).indices[..., :k]
    return torch.zeros_like(scores).scatter_(-1, order, 1.0)


def top_k_gate(scores: Scores, k: int) -> Scores:
    """`top_k_mask` forward; backward as if it were softmax(scores) (straight-through estimate)."""
    mask = top_k_mask(scores.detach(), k)
    if not scores.requires_grad:
        return mask
    soft = scores.softmax(dim=-1)
    return mask + (soft - soft.detach())


def hold_window(gates: Tensor, step: int) -> Tensor:
    """Keep the decision of `step` for the rest of the window; before it nothing is chosen.

    Args:
        gates: (T, ...).
    """
    silent = torch.zeros_like(gates[:step])
    return torch.cat([silent, gates[step : step + 1].expand(len(gates) - step, *gates.shape[1:])])


def expert_load(gates: Scores) -> Load:
    """Share of all choices that fall on each expert, (E,); sums to 1 unless nothing is chosen."""
    counts = gates.detach().flatten(0, -2).sum(0)
    return counts / counts.sum().clamp(min=1.0)


def load_balance_loss(scores: Scores, gates: Scores) -> Tensor:
    """E sum_e f_e P_e with the load f and the mean softmax probability P (Fedus 2022); 1 when even."""
    probability = scores.softmax(dim=-1).flatten(0, -2).mean(0)
    return scores.shape[-1] * (expert_load(gates) * probability).sum()


def entropy_loss(scores: Scores) -> Tensor:
    """Mean entropy of softmax(scores) over log(E): 0 when every choice is sure, 1 when blind."""
    log_p = scores.log_softmax(dim=-1)
    entropy = -(log_p.exp() * log_p).sum(-1).mean()
    return entropy / torch.log(torch.tensor(float(scores.shape[-1])))


def homeostatic_step(bias: Load, load: Load, rate: float) -> Load:
    """Bias moved by `rate` * sign(mean load - load) and centred (loss-free balancing, Wang 2024)."""
    moved = bias + rate * torch.sign(load.mean() - load)
    return moved - moved.mean()
