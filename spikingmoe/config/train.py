"""How a model is trained."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from spikingmoe.config.fields import check_types, from_dict

Optimizer = Literal["adamw", "muon"]
Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a model is trained.

    Attributes:
        optimizer: "adamw", or "muon" for the matrices inside the network (`spikingmoe.train.muon`) and
            AdamW for the rest; both take the same learning rates.
        gradient_clip: largest norm of the gradient of all weights; 0 does not clip.
        ema_decay: the weights that are evaluated and kept are a running mean of those that are
            trained, w <- d w + (1 - d) new with d = ema_decay, less in the first steps
            (`spikingmoe.train.averaging.decay_at`); 0 keeps the trained ones.
        precision: "bf16" multiplies matrices in bfloat16; sums, norms and membranes stay in float32.
        train_samples: how many training images are used, evenly over the classes; 0 is all.
        train_on_validation: train on the held-out images too, for a final figure whose settings are
            chosen; there is no validation then.
        balance_weight, importance_weight, z_weight, entropy_weight, variance_weight,
        orthogonality_weight, budget_weight: of the routing losses
            (`spikingmoe.functional.routing.balance`), averaged over the mixtures.
        synops_budget: synaptic operations per image that the trained network may use, as
            `hardware.energy` counts them on the lowered graph; 0: no budget. A Lagrangian multiplier
            prices them until the budget is kept (`spikingmoe.train.penalty`).
        synops_weight: of the share of all possible synaptic operations that are executed, as a fixed
            price; 0: none.
        rate_target, rate_weight: of the mean squared excess of the populations' firing rates (spikes
            per neuron and step) over a target. A ReLU network has no spikes: these four do nothing.
        homeostatic_rate: how far the homeostatic bias moves per step against the load error.
        initial_temperature, temperature_epochs: the softmax (or sigmoid) behind the gates' gradient
            and the routing losses starts at this temperature and falls geometrically to 1.
        max_shift: augmentation, a random translation by up to this many pixels.
        flip: augmentation, mirrors half of the images left to right.
        rand_augment_ops, rand_augment_magnitude, rand_augment_std: RandAugment (Cubuk 2020) with so
            many operations per image, of a magnitude in 0..10 with this spread; 0 operations: none.
        random_erasing: probability that a rectangle of an image is erased (Zhong 2020).
        mixup, cutmix: alpha of the Beta distribution of the mixing share (Zhang 2018, Yun 2019); 0:
            none; with both, each image takes one of them.
        mix_epochs: epochs in which images are mixed; 0: all.
        threads: of the CPU; part of the recipe, since it decides the order of floating-point sums.
            One is best for small models, also where other work runs beside.
    """

    data: str = "digits"
    epochs: int = 40
    batch_size: int = 64
    optimizer: Optimizer = "adamw"
    learning_rate: float = 4e-3
    weight_decay: float = 0.05
    warmup_epochs: int = 3
    label_smoothing: float = 0.05
    gradient_clip: float = 1.0
    ema_decay: float = 0.0
    precision: Precision = "fp32"
    train_samples: int = 0
    train_on_validation: bool = False
    balance_weight: float = 0.01
    importance_weight: float = 0.0
    z_weight: float = 0.0
    entropy_weight: float = 0.001
    variance_weight: float = 0.0
    orthogonality_weight: float = 0.0
    budget_weight: float = 0.0
    synops_budget: float = 0.0
    synops_weight: float = 0.0
    rate_target: float = 0.0
    rate_weight: float = 0.0
    homeostatic_rate: float = 5e-3
    initial_temperature: float = 1.0
    temperature_epochs: int = 0
    max_shift: int = 1
    flip: bool = False
    rand_augment_ops: int = 0
    rand_augment_magnitude: float = 9.0
    rand_augment_std: float = 0.4
    random_erasing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    mix_epochs: int = 0
    threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("epochs", "batch_size", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"training: {name}={getattr(self, name)} must be at least 1")
        for name in (
            "weight_decay",
            "gradient_clip",
            "rand_augment_ops",
            "rand_augment_std",
            "mixup",
            "cutmix",
            "mix_epochs",
            "warmup_epochs",
            "train_samples",
            "balance_weight",
            "importance_weight",
            "z_weight",
            "entropy_weight",
            "variance_weight",
            "orthogonality_weight",
            "budget_weight",
            "synops_budget",
            "synops_weight",
            "rate_weight",
            "homeostatic_rate",
            "temperature_epochs",
            "max_shift",
            "seed",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"training: {name}={getattr(self, name)} must not be negative")
        if self.seed >= 2**32:
            raise ValueError(f"training: seed={self.seed} must be below 2**32")
        if not self.learning_rate > 0 or not 0 <= self.label_smoothing < 1:
            raise ValueError("training: learning_rate must be positive, label_smoothing in [0, 1)")
        if not 0 <= self.ema_decay < 1 or not 0 <= self.random_erasing <= 1:
            raise ValueError("training: ema_decay must be in [0, 1), random_erasing in [0, 1]")
        if 0 < self.synops_budget < 1:
            raise ValueError(
                f"training: synops_budget={self.synops_budget} is a number of synaptic operations per "
                f"image, not a share; `spikingmoe energy` tells how many a run uses"
            )
        if not 0 <= self.rate_target < 1:
            raise ValueError(
                f"training: rate_target={self.rate_target} is spikes per neuron and step; use 0 to below 1"
            )
        if self.rate_target and not self.rate_weight:
            raise ValueError(
                f"training: rate_target={self.rate_target} needs a rate_weight above 0; try 10"
            )
        if not 0 <= self.rand_augment_magnitude <= 10:
            raise ValueError(
                f"training: rand_augment_magnitude={self.rand_augment_magnitude} must be in 0..10"
            )
        if self.mix_epochs and not (self.mixup or self.cutmix):
            raise ValueError(
                f"training: mix_epochs={self.mix_epochs} needs mixup or cutmix above 0; use 0"
            )
        if self.initial_temperature < 1:
            raise ValueError(
                f"training: initial_temperature={self.initial_temperature} must be at least 1"
            )
        if self.initial_temperature > 1 and not 0 < self.temperature_epochs <= self.epochs:
            raise ValueError(
                f"training: initial_temperature={self.initial_temperature} needs temperature_epochs "
                f"in 1..{self.epochs}, in which it falls to 1; got {self.temperature_epochs}"
            )
        if self.initial_temperature == 1 and self.temperature_epochs:
            raise ValueError(
                f"training: temperature_epochs={self.temperature_epochs} has nothing to lower; "
                f"use an initial_temperature above 1, or 0 epochs"
            )

    @property
    def pays_for_spikes(self) -> bool:
        """Whether the loss has a term of spikes or synaptic operations."""
        return bool(self.synops_budget or self.synops_weight or self.rate_weight)

    def as_dict(self) -> dict[str, object]:
        """JSON values; `train_config` reads them back."""
        return asdict(self)


def train_config(values: dict[str, object]) -> TrainConfig:
    """A TrainConfig from JSON values; ValueError for unknown or missing fields."""
    return from_dict(TrainConfig, values)
