"""Losses that keep a router's choices spread, sure, or few.

`probability` (..., E) is the soft form of the gates: a softmax, or a sigmoid per expert.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from spikingmoe.shapes import Load, Scores


def expert_load(gates: Scores) -> Load:
    """Share of all choices that fall on each expert, (E,); sums to 1 unless nothing is chosen."""
    counts = gates.detach().flatten(0, -2).sum(0)
    return counts / counts.sum().clamp(min=1.0)


def balance_loss(probability: Scores, load: Load) -> Tensor:
    """E sum_e f_e P_e with the load f and the mean share P of probability; 1 when even.

    Switch transformers (Fedus 2022, equation 4).
    """
    mean = probability.flatten(0, -2).mean(0)
    return len(load) * (load * mean / mean.sum().clamp(min=1e-9)).sum()


def importance_loss(probability: Scores) -> Tensor:
    """Squared coefficient of variation of the summed probabilities; 0 when even (Shazeer 2017, 7)."""
    importance = probability.flatten(0, -2).mean(0)
    return importance.var(unbiased=False) / importance.mean().square().clamp(min=1e-9)


def z_loss(scores: Scores) -> Tensor:
    """Mean of logsumexp(scores)^2: keeps scores small (ST-MoE, Zoph 2022, equation 5)."""
    return scores.logsumexp(-1).square().mean()


def entropy_loss(probability: Scores, *, competitive: bool = True) -> Tensor:
    """Mean entropy of the choice: 0 when every choice is sure, 1 when blind.

    Args:
        competitive: the probabilities of a row sum to 1 (entropy over log E); otherwise each is
            that of an own yes or no (binary entropy over log 2).
    """
    entropy = _minus_p_log_p(probability)
    if competitive:
        return entropy.sum(-1).mean() / math.log(probability.shape[-1])
    return (entropy + _minus_p_log_p(1 - probability)).mean() / math.log(2)


def variance_loss(probability: Scores) -> Tensor:
    """Minus the variance of each expert's probability over the rows, mean over experts.

    Lower is better: experts are chosen by some rows and left by others (arXiv 2505.22323).
    """
    return -probability.flatten(0, -2).var(dim=0, unbiased=False).mean()


def budget_loss(gates: Scores, budget: float) -> Tensor:
    """(mean number of open gates / budget - 1)^2, for rules that leave the number free.

    Args:
        gates: 0 and 1, with a gradient. budget: experts per row aimed at.
    """
    return (gates.sum(-1).mean() / budget - 1).square()


def orthogonality_loss(mean_outputs: Tensor) -> Tensor:
    """Mean squared cosine between the mean outputs of each two experts; 0 when orthogonal.

    arXiv 2505.22323 takes the outputs for each token; with one expert per token there are no two,
    so we take each expert's mean over the rows that chose it. (E, D) -> scalar; experts without
    rows (all zero) count as orthogonal.
    """
    experts = len(mean_outputs)
    length = mean_outputs.square().sum(-1, keepdim=True).clamp(min=1e-12).sqrt()
    cosine = (mean_outputs / length) @ (mean_outputs / length).T
    others = ~torch.eye(experts, dtype=torch.bool, device=cosine.device)
    return cosine[others].square().mean()


def _minus_p_log_p(p: Tensor) -> Tensor:
    return -p * p.clamp(min=1e-12).log()
