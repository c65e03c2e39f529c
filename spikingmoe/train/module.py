"""The Lightning module: loss, homeostasis, metrics."""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.nn import functional as F

from spikingmoe.config import TrainConfig
from spikingmoe.data.augment import augment, batch_generator
from spikingmoe.data.image_data import ImageData, Split, model_input
from spikingmoe.layers.router import RoutingInfo, RoutingLosses
from spikingmoe.model import SpikingTransformer
from spikingmoe.train.activity import Activity
from spikingmoe.train.checkpoint import ABOUT
from spikingmoe.train.device_data import DeviceSplit
from spikingmoe.train.devices import joint_routing, share_norm_statistics
from spikingmoe.train.generators import generator_states, restore_generators
from spikingmoe.train.health import Health, TrainingError
from spikingmoe.train.loader import IndexBatch
from spikingmoe.train.operations import OperationMeter
from spikingmoe.train.optim import learning_rate_share, make_optimizer, temperature
from spikingmoe.train.penalty import RELAY_IMAGES, SpikePenalty
from spikingmoe.train.record import TrainingRecord
from spikingmoe.train.sums import EpochSums

__all__ = ["TrainingError", "TrainingModule"]

Batch = IndexBatch | tuple[Tensor, Tensor]
SUMS, GENERATORS, RECORD = "epoch_sums", "generators", "record"  # keys of a checkpoint
PENALTY = "spike_penalty"  # another, of trainings that pay for spikes
RANK_STRIDE = 2**40  # keeps the noise of several devices apart


class TrainingModule(L.LightningModule):
    """Trains a SpikingTransformer.

    loss = cross entropy + the weighted routing losses (`RoutingLosses`), averaged over the routers;
    each batch's decisions move the homeostatic biases. Batches are numbers of samples that lie on the
    device (`IndexBatch`), or images with labels.
    `history` holds one record per epoch.

    Args:
        samples: what is trained on; all training images of `data` if not given.
    """

    def __init__(
        self,
        model: SpikingTransformer,
        config: TrainConfig,
        data: ImageData,
        steps_per_epoch: int,
        samples: Split | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.config = config
        self.normalisation, self.num_classes = data.normalisation, len(data.classes)
        self.steps_per_epoch = steps_per_epoch
        self.samples = self._on_device(data.train if samples is None else samples)
        self.validation = self._on_device(data.validation)
        self.history: list[dict[str, float]] = []
        self.sums = EpochSums()
        self.health = Health(config.learning_rate)
        self.record = TrainingRecord()
        self.activity = Activity(model)
        self.penalty: SpikePenalty | None = None
        if config.pays_for_spikes and model.config.is_spiking:
            steps = config.epochs * steps_per_epoch
            self.penalty = SpikePenalty(config, OperationMeter(model), steps)
        self.last_total = 0  # samples of the last step, over all devices
        self._generators: dict[str, Any] | None = None
        self._within_epoch = False  # a run that goes on there does not start an epoch

    def _on_device(self, split: Split) -> DeviceSplit:
        return DeviceSplit(split, self.normalisation, self.num_classes)

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Indices stay on the CPU; the samples are on the device already."""
        if isinstance(batch, IndexBatch):
            return batch
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def on_train_start(self) -> None:
        for part in (self.samples, self.validation, self.sums, self.health, self.record):
            part.to(self.device)
        if self.penalty is not None:
            self.penalty.to(self.device)
            self.penalty.check(model_input(self._few_images()))
        if self._within_epoch:
            self._set_temperature()
        if (
            self._generators is not None
        ):  # last, so that nothing before the next step draws from them
            restore_generators(self._generators)
            self._generators = None

    def on_train_epoch_start(self) -> None:
        self.sums.reset(self.device)
        self._set_temperature()

    def _set_temperature(self) -> None:
        self.model.set_temperature(
            temperature(
                self.current_epoch,
                initial=self.config.initial_temperature,
                epochs=self.config.temperature_epochs,
            )
        )

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        images, targets, own, total = self._training_batch(batch, batch_index)
        self._seed_noise(batch_index)
        with self._watching():
            out = self.model(images)
            loss = F.cross_entropy(
                out.logits.float(), targets, label_smoothing=self.config.label_smoothing
            )
            loss = loss + self._routing_loss(out.routing)
            if self.penalty is not None:
                loss = loss + self.penalty.loss(self.penalty.meter.measure(images), own).float()
        self.health.note(loss, self.current_epoch, batch_index)
        share = own / total
        self.model.adapt(joint_routing(out.routing, share), self.config.homeostatic_rate)
        self.sums.add_training(loss, out.logits, targets, own)
        self.record.note(loss, self.current_epoch, batch_index, self._learning_rate())
        self.last_total = total
        if own == total:
            return loss
        return loss * (share * self.trainer.world_size)  # devices' gradients are averaged

    def _watching(self) -> AbstractContextManager[None]:
        """Of a forward pass whose spikes are paid for; nothing otherwise."""
        return nullcontext() if self.penalty is None else self.penalty.meter.watching()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        share_norm_statistics(self.model)  # not sooner: the gradients need them as they were

    def _training_batch(self, batch: Batch, batch_index: int) -> tuple[Tensor, Tensor, int, int]:
        """(images as the model takes them, targets, samples of this device, of all devices)."""
        if isinstance(batch, IndexBatch):
            images, targets = self.samples.training_batch(
                batch.index, self.config, self.current_epoch
            )
            return images, targets, batch.own, batch.total
        images, labels = batch[0], batch[1].long()
        index = torch.arange(len(labels)) + batch_index * len(labels)
        images, targets = augment(
            images,
            labels,
            index,
            self.config,
            self.normalisation,
            self.num_classes,
            epoch=self.current_epoch,
        )
        return model_input(images), targets, len(labels), len(labels)

    def _learning_rate(self) -> float:
        """Of the present step; 0 outside of a training."""
        return self.optimizers().param_groups[0]["lr"] if self._trainer is not None else 0.0  # type: ignore[union-attr]

    def _seed_noise(self, batch_index: int) -> None:
        """Noise in the model repeats on resume, and is another on each device."""
        generator = batch_generator(self.config.seed, self.current_epoch, batch_index)
        torch.manual_seed((generator.initial_seed() + self.global_rank * RANK_STRIDE) % 2**63)

    def _routing_loss(self, routing: tuple[RoutingInfo, ...]) -> Tensor | float:
        """The weighted routing losses, each averaged over the routers."""
        total: Tensor | float = 0.0
        for field in fields(RoutingLosses):
            weight = getattr(self.config, f"{field.name}_weight")
            if weight > 0 and routing:
                losses = [getattr(info.losses, field.name) for info in routing]
                total = total + weight * torch.stack(losses).mean()
        return total

    def validation_step(self, batch: Batch, _batch_index: int) -> None:
        if isinstance(batch, IndexBatch):
            (images, labels), own = self.validation.batch(batch.index), batch.own
        else:
            images, labels, own = model_input(batch[0]), batch[1], len(batch[1])
        # Without autocast, as `evaluate` does.
        with torch.autocast(self.device.type, enabled=False), self._watching():
            out = self.model(images)
            if self.penalty is not None:
                self.penalty.note_validation(self.penalty.meter.measure(images), own)
        self.sums.add_validation(out.logits, labels, own)
        if own:
            self.activity.note(out.routing, own)

    def on_validation_start(self) -> None:
        self.activity.start()

    def on_validation_end(self) -> None:
        self.activity.stop()

    def on_train_epoch_end(self) -> None:
        self.health.check()
        paid = {} if self.penalty is None else self.penalty.end_epoch(self._few_images())
        self.history.append(
            {
                "epoch": float(self.current_epoch),
                **self.sums.record(),
                **paid,
                "learning_rate": self._learning_rate(),
            }
        )
        self.record.activity.append(self.activity.record(self.device))

    def _few_images(self) -> Tensor:
        """(S, ...) held-out images, or training images where none are held out."""
        split = self.samples if self.config.train_on_validation else self.validation
        images, _ = split.batch(torch.arange(min(RELAY_IMAGES, len(split))))
        return images.transpose(0, 1) if images.ndim == 5 else images

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[SUMS] = self.sums.total()
        checkpoint[GENERATORS] = generator_states()
        checkpoint[RECORD] = self.record.state()
        if self.penalty is not None:
            checkpoint[PENALTY] = self.penalty.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.sums.load(checkpoint[SUMS], self.global_rank)
        self._generators = checkpoint[GENERATORS]
        self.record.load(checkpoint[RECORD])
        if self.penalty is not None:
            self.penalty.load(checkpoint[PENALTY])
        self._within_epoch = checkpoint[ABOUT]["steps"] > 0

    def configure_optimizers(self):
        optimizer = make_optimizer(self.model, self.config)
        share = functools.partial(
            learning_rate_share,
            warmup_steps=self.config.warmup_epochs * self.steps_per_epoch,
            total_steps=self.config.epochs * self.steps_per_epoch,
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
