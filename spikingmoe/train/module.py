"""The Lightning module: loss, homeostasis, metrics."""

from __future__ import annotations

import functools
from dataclasses import fields

import lightning as L
import torch
from torch import Tensor
from torch.nn import functional as F

from spikingmoe.config import TrainConfig
from spikingmoe.data.augment import batch_generator, random_flip, random_shift
from spikingmoe.data.image_data import ImageData
from spikingmoe.layers.router import RoutingInfo, RoutingLosses
from spikingmoe.model import SpikingTransformer
from spikingmoe.train.optim import learning_rate_share, make_optimizer, temperature

Batch = tuple[Tensor, Tensor]


class TrainingError(ValueError):
    """Training cannot go on: the loss is no longer a number."""


class TrainingModule(L.LightningModule):
    """Trains a SpikingTransformer.

    loss = cross entropy + the weighted routing losses (`RoutingLosses`), averaged over the routers;
    each batch's decisions move the homeostatic biases.
    `history` holds one record per epoch.
    """

    def __init__(
        self, model: SpikingTransformer, config: TrainConfig, data: ImageData, steps_per_epoch: int
    ) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.background = data.background
        self.steps_per_epoch = steps_per_epoch
        self.history: list[dict[str, float]] = []
        self._reset_sums()

    def _reset_sums(self) -> None:
        self._loss = torch.zeros(())
        self._correct = {"train": torch.zeros(()), "validation": torch.zeros(())}
        self._seen = {"train": 0, "validation": 0}

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        images, labels = batch
        generator = batch_generator(self.config.seed, self.current_epoch, batch_index)
        torch.manual_seed(generator.initial_seed())  # noise in the model repeats on resume
        images = random_shift(images, self.config.max_shift, self.background, generator)
        if self.config.flip:
            images = random_flip(images, generator)
        out = self.model(images)
        loss = F.cross_entropy(out.logits, labels, label_smoothing=self.config.label_smoothing)
        loss = loss + self._routing_loss(out.routing)
        if not torch.isfinite(loss):
            raise TrainingError(
                f"training: the loss is {loss.item()} at epoch {self.current_epoch}, step "
                f"{batch_index}; train anew with a learning_rate below {self.config.learning_rate:g}"
            )
        self.model.adapt(out.routing, self.config.homeostatic_rate)
        self._loss += loss.detach() * len(labels)
        self._count("train", out.logits, labels)
        return loss

    def _routing_loss(self, routing: tuple[RoutingInfo, ...]) -> Tensor | float:
        """The weighted routing losses, each averaged over the routers."""
        total: Tensor | float = 0.0
        for field in fields(RoutingLosses):
            weight = getattr(self.config, f"{field.name}_weight")
            if weight > 0 and routing:
                losses = [getattr(info.losses, field.name) for info in routing]
                total = total + weight * torch.stack(losses).mean()
        return total

    def on_train_epoch_start(self) -> None:
        self.model.set_temperature(
            temperature(
                self.current_epoch,
                initial=self.config.initial_temperature,
                epochs=self.config.temperature_epochs,
            )
        )

    def validation_step(self, batch: Batch, _batch_index: int) -> None:
        self._count("validation", self.model(batch[0]).logits, batch[1])

    def _count(self, split: str, logits: Tensor, labels: Tensor) -> None:
        self._correct[split] += (logits.detach().argmax(1) == labels).sum()
        self._seen[split] += len(labels)

    def on_train_epoch_end(self) -> None:
        record = {
            "epoch": float(self.current_epoch),
            "loss": float(self._loss) / max(1, self._seen["train"]),
            "train_accuracy": float(self._correct["train"]) / max(1, self._seen["train"]),
            "validation_accuracy": float(self._correct["validation"])
            / max(1, self._seen["validation"]),
        }
        self.history.append(record)
        self._reset_sums()

    def configure_optimizers(self):
        optimizer = make_optimizer(self.model, self.config)
        share = functools.partial(
            learning_rate_share,
            warmup_steps=self.config.warmup_epochs * self.steps_per_epoch,
            total_steps=self.config.epochs * self.steps_per_epoch,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
