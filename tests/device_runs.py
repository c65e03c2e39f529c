"""What processes that train on one of several devices do in the tests; found by name when they start."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from spikingmoe.train.devices import Place
from spikingmoe.train.job import Job
from spikingmoe.train.module import TrainingModule
from spikingmoe.train.processes import Tell


def digest(state: dict[str, torch.Tensor]) -> str:
    """SHA-256 over all of a state's bytes."""
    found = hashlib.sha256()
    for name, value in state.items():
        found.update(name.encode())
        found.update(value.contiguous().numpy().tobytes())
    return found.hexdigest()


@dataclass(frozen=True)
class WatchedJob:
    """A job that writes down its device's samples and, at the end, its weights.

    Attributes:
        still: norms use their running statistics also in training, so that a step is a mean over its
            samples, however they are shared out.
    """

    job: Job
    notes: Path
    still: bool = False

    def __call__(self, place: Place, tell: Tell) -> None:
        torch.set_num_threads(1)
        samples: list[list[int]] = []
        gradients: dict[str, list[float]] = {}
        step, end = TrainingModule.training_step, TrainingModule.on_train_end
        before = TrainingModule.on_before_optimizer_step

        def training_step(module, batch, batch_index):
            if self.still:
                for part in module.model.modules():
                    if "Norm" in type(part).__name__ and isinstance(part, nn.Module):
                        part.eval()
            samples.append(batch.index[: batch.own].tolist())
            return step(module, batch, batch_index)

        def on_before_optimizer_step(module, optimizer):
            before(module, optimizer)
            for name, parameter in module.model.named_parameters():
                if len(samples) == 1 and parameter.grad is not None:
                    gradients[name] = parameter.grad.flatten().tolist()

        def on_train_end(module):
            end(module)
            state = module.model.state_dict()
            note = {
                "digest": digest(state),
                "samples": samples,
                "gradients": gradients,  # of the first step
                "biases": [r.homeostatic_bias.tolist() for r in module.model.routers()],
                "history": module.history,
            }
            (self.notes / f"rank{place.rank}.json").write_text(json.dumps(note))

        TrainingModule.training_step, TrainingModule.on_train_end = training_step, on_train_end
        TrainingModule.on_before_optimizer_step = on_before_optimizer_step
        self.job(place, tell)
