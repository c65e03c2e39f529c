"""AdamW with weight decay on matrices only, and linear warm-up into a cosine."""

from __future__ import annotations

import math

import torch
from torch import nn

from spikingmoe.config import TrainConfig

FLOOR = 0.01  # the last step's learning rate, as a share of the peak


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW; biases, norms, gains and receptive fields are not decayed."""
    undecayed = ("norm", "bias", "log_gain", "fields")
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        decay = parameter.ndim > 1 and not any(word in name for word in undecayed)
        groups[decay].append(parameter)
    return torch.optim.AdamW(
        [
            {"params": groups[True], "weight_decay": config.weight_decay},
            {"params": groups[False], "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
    )


def learning_rate_share(step: int, *, warmup_steps: int, total_steps: int) -> float:
    """Share of the peak learning rate at `step`: linear up, then half a cosine down to 1 %."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * progress))


def temperature(epoch: int, *, initial: float, epochs: int) -> float:
    """Temperature of the gates' soft form in `epoch`: `initial` at first, 1 from `epochs` on.

    It falls geometrically, which is linear in the logarithm.
    """
    return initial ** max(0.0, 1 - epoch / epochs) if epochs else 1.0
