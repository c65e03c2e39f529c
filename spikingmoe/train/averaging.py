"""The running mean of the weights, which is validated and kept in place of the trained ones.

Lightning's `EMAWeightAveraging` is not used: it averages integer buffers too (and so cuts them off),
copies the module with the whole data set, and its mean stays near the first weights for
1 / (1 - decay) steps.
"""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

PREFIX = "model."
TRAINED, STEPS = "trained_state", "averaged_steps"  # keys of a checkpoint


def decay_at(step: int, decay: float) -> float:
    """min(decay, (1 + step) / (10 + step)): short at first, as in Tensorflow's moving averages."""
    return min(decay, (1 + step) / (10 + step))


class WeightAverage(Callback):
    """mean <- d mean + (1 - d) weights after each step, with d = `decay_at` of the steps so far.

    Running statistics of norms and homeostatic biases are averaged like weights, since they belong to
    the weights of the same steps; integers are copied. Validation runs on the mean, and a checkpoint's
    `state_dict` holds it; the weights that are trained lie beside it.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.mean: dict[str, Tensor] = {}

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.mean = {name: value.clone() for name, value in _state(pl_module).items()}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.mean = {name: value.to(pl_module.device) for name, value in self.mean.items()}

    @torch.no_grad()
    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        state = _state(pl_module)
        share = 1 - decay_at(self.steps, self.decay)
        floats = [name for name, value in state.items() if value.is_floating_point()]
        torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
            [self.mean[n] for n in floats], [state[n] for n in floats], share
        )
        for name in state.keys() - set(floats):
            self.mean[name].copy_(state[name])
        self.steps += 1

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._exchange(pl_module)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._exchange(pl_module)

    @torch.no_grad()
    def _exchange(self, pl_module: L.LightningModule) -> None:
        for name, value in _state(pl_module).items():
            kept = value.clone()
            value.copy_(self.mean[name])
            self.mean[name].copy_(kept)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint[TRAINED] = checkpoint["state_dict"]
        checkpoint["state_dict"] = {PREFIX + name: value for name, value in self.mean.items()}
        checkpoint[STEPS] = self.steps

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.mean = {
            name.removeprefix(PREFIX): value.clone()
            for name, value in checkpoint["state_dict"].items()
        }
        self.steps = checkpoint[STEPS]
        pl_module.load_state_dict(checkpoint[TRAINED])


def _state(pl_module: L.LightningModule) -> dict[str, Tensor]:
    return pl_module.model.state_dict()  # type: ignore[union-attr,operator]
