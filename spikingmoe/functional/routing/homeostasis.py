"""Keeping experts equally busy by moving their biases, without a loss (Wang 2024, arXiv 2408.15664)."""

from __future__ import annotations

import torch

from spikingmoe.shapes import Channels, Load, Scores


def homeostatic_step(bias: Scores, load: Scores, rate: float) -> Scores:
    """Bias moved by `rate` * sign(mean load - load), then centred."""
    moved = bias + rate * torch.sign(load.mean(-1, keepdim=True) - load)
    return moved - moved.mean(-1, keepdim=True)


def group_homeostatic_step(bias: Channels, load: Load, rate: float, groups: int) -> Channels:
    """The same for groups and, within each group, for its experts. bias (G + E,), load (E,)."""
    by_group = load.unflatten(-1, (groups, -1))
    group = homeostatic_step(bias[:groups], by_group.sum(-1), rate)
    within = homeostatic_step(bias[groups:].view_as(by_group), by_group, rate)
    return torch.cat([group, within.flatten()])


def threshold_homeostatic_step(bias: Load, open_rate: Load, target: float, rate: float) -> Load:
    """Bias moved by `rate` * sign(target - open rate): each expert is open at the target rate."""
    return bias + rate * torch.sign(target - open_rate)
