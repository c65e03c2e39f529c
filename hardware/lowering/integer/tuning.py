"""Quantisation-aware training: a few epochs through the integer network, resumable epoch by epoch.

The loss is the cross entropy with the targets and, by `distillation`, with what the float model says of
the same images (Hinton et al. 2015, temperature 1). AdamW without decay, half a cosine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardware.errors import FileError
from hardware.files import read_archive, write_archive
from hardware.lowering.integer.trainable import GridNetwork
from spikingmoe.train.optim import learning_rate_share

KIND, VERSION = "tuning", 1
#: (images (B, T or 1, *input shape) in real units, what the float model takes, targets) of an epoch.
Batches = Callable[[int], Iterable[tuple[Tensor, Tensor, Tensor]]]
#: (step, steps, loss) of the whole tuning.
Watch = Callable[[int, int, float], None]


@dataclass(frozen=True, kw_only=True)
class TuningSettings:
    """How to tune.

    Args:
        epochs: passes over the batches.
        steps_per_epoch: batches of one epoch.
        learning_rate: at the beginning.
        distillation: share of the loss that compares with the float model, 0 to 1.
        label_smoothing: of targets that are labels.
    """

    epochs: int
    steps_per_epoch: int
    learning_rate: float = 3e-4
    distillation: float = 0.5
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.steps_per_epoch < 1:
            raise ValueError(f"epochs={self.epochs}, steps={self.steps_per_epoch}; use at least 1")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate={self.learning_rate} must be above 0")
        if not 0 <= self.distillation <= 1:
            raise ValueError(f"distillation={self.distillation} must lie in 0 to 1")


def tune(
    network: GridNetwork,
    teacher: nn.Module,
    batches: Batches,
    settings: TuningSettings,
    *,
    state: Path,
    origin: str,
    watch: Watch | None = None,
) -> list[float]:
    """Train the network's weights in place; returns the mean loss of each epoch.

    Args:
        teacher: the float model; its forward gives `.logits`.
        state: file that holds where the tuning stands after each epoch; if it exists, tuning goes on
            from there. Remove it to begin anew.
        origin: says what is tuned (run, bits, data); a state of another origin is refused.

    Raises:
        FileError: the state is damaged, or belongs to another tuning.
        ValueError: the loss is no longer a number.
    """
    teacher.eval()
    parameters = dict(network.named_parameters())
    optimiser = torch.optim.AdamW(parameters.values(), lr=settings.learning_rate, weight_decay=0.0)
    total = settings.epochs * settings.steps_per_epoch
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, partial(learning_rate_share, warmup_steps=0, total_steps=total)
    )
    mark = hashlib.sha256(json.dumps([origin, asdict(settings)]).encode()).hexdigest()
    losses = _load(state, mark, parameters, optimiser, schedule)
    for epoch in range(len(losses), settings.epochs):
        summed = 0.0
        for index, (inputs, images, targets) in enumerate(batches(epoch)):
            loss = _loss(network, teacher, inputs, images, targets, settings)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            summed += float(loss.detach())
            if not np.isfinite(summed):
                raise ValueError(
                    f"tuning: the loss is {float(loss.detach())} at step {index} of epoch {epoch}; use a "
                    f"smaller learning rate than {settings.learning_rate:g}"
                )
            if watch:
                watch(epoch * settings.steps_per_epoch + index + 1, total, float(loss.detach()))
        losses.append(summed / settings.steps_per_epoch)
        _save(state, mark, parameters, optimiser, losses)
    return losses


def _loss(
    network: GridNetwork,
    teacher: nn.Module,
    inputs: Tensor,
    images: Tensor,
    targets: Tensor,
    settings: TuningSettings,
) -> Tensor:
    logits = network(inputs)[0].float()
    loss = F.cross_entropy(logits, targets, label_smoothing=settings.label_smoothing)
    if settings.distillation == 0:
        return loss
    with torch.no_grad():
        told = teacher(images).logits.float().log_softmax(1)
    distance = F.kl_div(logits.log_softmax(1), told, reduction="batchmean", log_target=True)
    return (1 - settings.distillation) * loss + settings.distillation * distance


def _save(
    path: Path,
    mark: str,
    parameters: dict[str, nn.Parameter],
    optimiser: torch.optim.AdamW,
    losses: list[float],
) -> None:
    arrays = {f"parameter/{n}": p.detach().cpu().numpy() for n, p in parameters.items()}
    for name, parameter in parameters.items():
        for field, value in optimiser.state.get(parameter, {}).items():
            arrays[f"{field}/{name}"] = np.asarray(value.detach().cpu())
    write_archive(path, arrays, {"mark": mark, "losses": losses}, kind=KIND, version=VERSION)


def _load(
    path: Path,
    mark: str,
    parameters: dict[str, nn.Parameter],
    optimiser: torch.optim.AdamW,
    schedule: torch.optim.lr_scheduler.LambdaLR,
) -> list[float]:
    if not path.exists():
        return []
    arrays, content = read_archive(path, kind=KIND, version=VERSION)
    if content.get("mark") != mark:
        raise FileError(
            f"{path}: belongs to another tuning (run, data, bits or settings differ); remove it, or "
            f"name another output"
        )
    fields = ("step", "exp_avg", "exp_avg_sq")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(torch.from_numpy(arrays[f"parameter/{name}"]))
            if f"step/{name}" in arrays:
                optimiser.state[parameter] = {
                    f: torch.from_numpy(arrays[f"{f}/{name}"].copy()) for f in fields
                }
    losses = [float(loss) for loss in cast("list[float]", content["losses"])]
    steps = round(float(max((a for n, a in arrays.items() if n.startswith("step/")), default=0)))
    for group in optimiser.param_groups:
        group["lr"] = group["initial_lr"] * schedule.lr_lambdas[0](steps)
    schedule.last_epoch = steps
    return losses
