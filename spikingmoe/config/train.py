"""How a model is trained."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from spikingmoe.config.fields import check_types, from_dict


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a model is trained.

    Attributes:
        train_samples: how many training images are used, evenly over the classes; 0 is all.
        balance_weight, importance_weight, z_weight, entropy_weight, variance_weight,
        orthogonality_weight, budget_weight: of the routing losses
            (`spikingmoe.functional.routing.balance`), averaged over the mixtures.
        homeostatic_rate: how far the homeostatic bias moves per step against the load error.
        initial_temperature, temperature_epochs: the softmax (or sigmoid) behind the gates' gradient
            and the routing losses starts at this temperature and falls geometrically to 1.
        max_shift: augmentation, a random translation by up to this many pixels.
        flip: augmentation, mirrors half of the images left to right.
        threads: of the CPU; part of the recipe, since it decides the order of floating-point sums.
            One is best for small models, also where other work runs beside.
    """

    data: str = "digits"
    epochs: int = 40
    batch_size: int = 64
    learning_rate: float = 4e-3
    weight_decay: float = 0.05
    warmup_epochs: int = 3
    label_smoothing: float = 0.05
    train_samples: int = 0
    balance_weight: float = 0.01
    importance_weight: float = 0.0
    z_weight: float = 0.0
    entropy_weight: float = 0.001
    variance_weight: float = 0.0
    orthogonality_weight: float = 0.0
    budget_weight: float = 0.0
    homeostatic_rate: float = 5e-3
    initial_temperature: float = 1.0
    temperature_epochs: int = 0
    max_shift: int = 1
    flip: bool = False
    threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("epochs", "batch_size", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"training: {name}={getattr(self, name)} must be at least 1")
        for name in (
            "weight_decay",
            "warmup_epochs",
            "train_samples",
            "balance_weight",
            "importance_weight",
            "z_weight",
            "entropy_weight",
            "variance_weight",
            "orthogonality_weight",
            "budget_weight",
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

    def as_dict(self) -> dict[str, object]:
        """JSON values; `train_config` reads them back."""
        return asdict(self)


def train_config(values: dict[str, object]) -> TrainConfig:
    """A TrainConfig from JSON values; ValueError for unknown or missing fields."""
    return from_dict(TrainConfig, values)
