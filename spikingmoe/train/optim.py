"""AdamW or Muon with weight decay on matrices only, and linear warm-up into a cosine."""

from __future__ import annotations

import math

import torch
from torch import nn

from spikingmoe.config import TrainConfig
from spikingmoe.train.muon import Muon

FLOOR = 0.01  # the last step's learning rate, as a share of the peak


#: Neither decayed nor made orthogonal: what they hold is no matrix.
NO_MATRIX = ("norm", "bias", "log_gain", "fields")
#: By AdamW also under Muon, as its author advises for what reads the input and what gives the output;
#: routers have their own balance.
FIRST_AND_LAST = ("stem.convs.0.", "head.", "router.", "prompt.")


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW or Muon; biases, norms, gains and receptive fields are not decayed."""
    matrices: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2 or any(word in name for word in NO_MATRIX):
            others.append(parameter)
        elif config.optimizer == "muon" and _is_orthogonal(name, parameter):
            matrices.append(parameter)
        else:
            decayed.append(parameter)
    groups: list[dict[str, object]] = [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.learning_rate)
    groups.append({"params": matrices, "weight_decay": config.weight_decay, "orthogonal": True})
    return Muon(groups, lr=config.learning_rate)


def _is_orthogonal(name: str, parameter: nn.Parameter) -> bool:
    depthwise = parameter.ndim == 4 and parameter.shape[1] == 1
    return not depthwise and not any(word in name for word in FIRST_AND_LAST)


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
