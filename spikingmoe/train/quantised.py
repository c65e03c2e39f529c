"""From a trained run to a program in integers: calibrated, tuned on the grid, and measured.

The adapter between data sets (torch) and `hardware.lowering.integer` (programs).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from hardware.ir.graph import SpikeGraph
from hardware.ir.reference import Progress
from hardware.lowering.from_torch import Residual, lower
from hardware.lowering.integer import GridNetwork, IntegerNetwork, message_squares
from hardware.lowering.integer.tuning import TuningSettings, Watch, tune
from hardware.passes.bounds import check_bounds
from hardware.passes.grid import WeightGrid
from hardware.passes.plan import QuantisationPlan, apply_plan
from hardware.passes.quantise import choose_plan
from hardware.simulate import to_inputs
from spikingmoe.data.image_data import ImageData, Split
from spikingmoe.data.user_module import ModuleData
from spikingmoe.functional.surrogate import make_surrogate
from spikingmoe.train.checkpoint import Run
from spikingmoe.train.device_data import DeviceSplit
from spikingmoe.train.loader import EpochBatches

BATCH = 128


@dataclass(frozen=True, kw_only=True)
class QuantiseSettings:
    """How a run becomes integers.

    Args:
        weight_bits: 2 to 8, sign included.
        residual: form of the residual stream, as for `lower`.
        calibration: training images whose spikes weigh the errors of weights; 0: none.
        headroom: by what factor sums may grow while tuning before they could leave the target's range.
        epochs: of tuning; 0: none.
        batch_size, learning_rate, distillation: of tuning (`TuningSettings`).
        train_samples: training images of an epoch; 0: all.
        seed: of the order of images.
    """

    weight_bits: int = 8
    residual: Residual = "relay"
    calibration: int = 256
    headroom: float = 1.5
    epochs: int = 0
    batch_size: int = 64
    learning_rate: float = 3e-4
    distillation: float = 0.5
    train_samples: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        WeightGrid(self.weight_bits)
        if self.epochs > 0:
            self.tuning(steps_per_epoch=1)
        least_of = {"calibration": 0, "epochs": 0, "batch_size": 1, "train_samples": 0}
        for name, least in least_of.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}; use at least {least}")
        if not self.headroom >= 1:
            raise ValueError(f"headroom={self.headroom}; use at least 1")

    def tuning(self, *, steps_per_epoch: int, label_smoothing: float = 0.0) -> TuningSettings:
        """What `tune` is told; ValueError for a value that it cannot take."""
        return TuningSettings(
            epochs=self.epochs,
            steps_per_epoch=steps_per_epoch,
            learning_rate=self.learning_rate,
            distillation=self.distillation,
            label_smoothing=label_smoothing,
        )


def float_graph(run: Run, settings: QuantiseSettings) -> SpikeGraph:
    """The run lowered, with a note of its data."""
    graph = lower(run.model, residual=settings.residual)
    return replace(graph, notes={**graph.notes, "data": run.train_config.data})


def calibrated_plan(
    graph: SpikeGraph, data: ImageData, settings: QuantiseSettings
) -> QuantisationPlan:
    """Scales and exponents, with errors weighed by the spikes of training images."""
    squares = None
    if settings.calibration:
        images = data.train.first(min(settings.calibration, len(data.train))).images
        squares = message_squares(graph, to_inputs(graph, images))
    headroom = settings.headroom if settings.epochs else 1.0
    bits = settings.weight_bits
    return choose_plan(graph, weight_bits=bits, headroom=headroom, squares=squares)


def tuned_graph(
    run: Run,
    data: ImageData,
    graph: SpikeGraph,
    plan: QuantisationPlan,
    settings: QuantiseSettings,
    *,
    state: Path,
    watch: Watch | None = None,
) -> tuple[SpikeGraph, list[float]]:
    """The program after quantisation-aware training, and the mean loss of each epoch.

    Raises:
        GraphError: after tuning a sum could leave the target's range; more headroom helps.
        ValueError: the data are loaded by a module of the user's own.
    """
    if isinstance(data, ModuleData):
        raise ValueError(
            f"data '{data.name}': tuning draws its own batches and a LightningDataModule makes them "
            f"itself; use --epochs 0 (calibration), or an image folder"
        )
    network = GridNetwork(graph, plan, make_surrogate(run.model_config.surrogate))
    samples = data.train.subset(settings.train_samples) if settings.train_samples else data.train
    order = EpochBatches(len(samples), settings.batch_size, settings.seed, shuffle=True)
    source = DeviceSplit(samples, data.normalisation, run.model_config.num_classes)
    recipe = replace(run.train_config, seed=settings.seed)

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        order.set_epoch(epoch)
        for batch in order:
            images, targets = source.training_batch(batch.index, recipe, epoch)
            yield network_inputs(images), images, targets

    losses = tune(
        network,
        run.model,
        batches,
        settings.tuning(steps_per_epoch=len(order), label_smoothing=recipe.label_smoothing),
        state=state,
        origin=f"{graph.fingerprint} {settings} {data.name}",
        watch=watch,
    )
    fixed = apply_plan(network.trained_graph(), plan)
    check_bounds(fixed)
    return fixed, losses


def network_inputs(images: Tensor) -> Tensor:
    """Images or frames as the model takes them -> (B, T or 1, H, W, C)."""
    if images.ndim == 5:  # (T, B, C, H, W)
        return images.permute(1, 0, 3, 4, 2)
    return images.permute(0, 2, 3, 1)[:, None]


@torch.no_grad()
def program_accuracy(graph: SpikeGraph, split: Split, progress: Progress | None = None) -> float:
    """Share of the images that a fixed-point program classifies rightly, computed in torch."""
    network, right = IntegerNetwork(graph), 0
    for start in range(0, len(split), BATCH):
        some = split.at(slice(start, start + BATCH))
        logits, _ = network(torch.from_numpy(to_inputs(graph, some.images)))
        right += int((logits.argmax(1) == some.labels).sum())
        if progress:
            progress(min(start + BATCH, len(split)), len(split))
    return right / len(split)
