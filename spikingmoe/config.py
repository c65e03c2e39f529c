"""Configuration: frozen, keyword-only dataclasses, validated once when they are built."""

from __future__ import annotations

import difflib
import functools
import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Literal, get_args, get_type_hints

Routing = Literal["top_k", "dense"]
Hold = Literal["step", "window"]
Neuron = Literal["lif", "relu"]
Surrogate = Literal["atan", "fast_sigmoid", "sigmoid"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A spiking mixture-of-experts transformer (axes as in `spikingmoe.shapes`).

    Attributes:
        input_channels, image_size: images are (B, input_channels, image_size, image_size).
        stem_channels: channels of the stem's convolutions before the last, which has `embed_dim`.
        stem_strides: one stride per convolution, the last included.
        routing: "top_k" (a router chooses `top_k` of `num_experts`) or "dense" (one expert, always on).
        hold: "step" decides anew at each step; "window" keeps the decision of step `hold_step`
            (and no expert works before it).
        prompt_grid: the prompt pools relay cells onto a grid of this size.
        neuron: "lif", or "relu" for the non-spiking twin (`time_steps` is 1 then).
    """

    preset: str = "custom"
    num_classes: int = 10
    input_channels: int = 1
    image_size: int = 8
    time_steps: int = 4
    stem_channels: tuple[int, ...] = (16, 32)
    stem_strides: tuple[int, ...] = (1, 2, 1)
    embed_dim: int = 32
    depth: int = 2
    num_heads: int = 4
    expert_width: int = 64
    num_experts: int = 4
    top_k: int = 1
    routing: Routing = "top_k"
    hold: Hold = "step"
    hold_step: int = 1
    prompt_width: int = 16
    prompt_grid: int = 2
    relay_kernel: int = 5
    neuron: Neuron = "lif"
    membrane_decay: float = 0.5
    threshold: float = 1.0
    surrogate: Surrogate = "atan"
    detach_reset: bool = False

    def __post_init__(self) -> None:
        _check_types(self)
        where = f"model '{self.preset}'"
        for name in (
            "num_classes",
            "input_channels",
            "image_size",
            "time_steps",
            "embed_dim",
            "depth",
            "num_heads",
            "expert_width",
            "num_experts",
            "top_k",
            "prompt_width",
            "prompt_grid",
        ):
            if getattr(self, name) < 1:
                raise ValueError(f"{where}: {name}={getattr(self, name)} must be at least 1")
        if self.num_classes < 2:
            raise ValueError(f"{where}: num_classes={self.num_classes} must be at least 2")
        if self.time_steps > 64:
            raise ValueError(f"{where}: time_steps={self.time_steps} exceeds 64; use 1 to 64")
        if self.top_k > self.num_experts:
            raise ValueError(
                f"{where}: top_k={self.top_k} exceeds num_experts={self.num_experts}; "
                f"use 1 to {self.num_experts}"
            )
        if self.routing == "top_k" and self.top_k == self.num_experts:
            raise ValueError(
                f"{where}: top_k={self.top_k} of {self.num_experts} experts leaves nothing to choose; "
                f"use fewer, or routing='dense' with num_experts=1"
            )
        if self.routing == "dense" and self.num_experts != 1:
            raise ValueError(
                f"{where}: routing='dense' has one expert, got num_experts={self.num_experts}; use 1"
            )
        if self.embed_dim % self.num_heads:
            raise ValueError(
                f"{where}: num_heads={self.num_heads} does not divide embed_dim={self.embed_dim}"
            )
        if len(self.stem_strides) != len(self.stem_channels) + 1:
            raise ValueError(
                f"{where}: stem_strides={self.stem_strides} needs {len(self.stem_channels) + 1} entries"
            )
        if min(self.stem_channels + self.stem_strides, default=1) < 1:
            raise ValueError(f"{where}: stem_channels and stem_strides must be at least 1")
        if self.image_size % self.prompt_grid:
            raise ValueError(
                f"{where}: prompt_grid={self.prompt_grid} does not divide image_size={self.image_size}"
            )
        if self.relay_kernel % 2 == 0 or self.relay_kernel < 3:
            raise ValueError(
                f"{where}: relay_kernel={self.relay_kernel} must be odd and at least 3"
            )
        if self.hold == "window" and not 0 <= self.hold_step < self.time_steps:
            raise ValueError(
                f"{where}: hold_step={self.hold_step} must lie in 0..{self.time_steps - 1}"
            )
        if not 0.0 <= self.membrane_decay < 1.0 or self.threshold <= 0.0:
            raise ValueError(
                f"{where}: membrane_decay must lie in [0, 1) and threshold be positive"
            )
        if not (self.membrane_decay * 4096).is_integer():
            nearest = round(self.membrane_decay * 4096) / 4096
            raise ValueError(
                f"{where}: membrane_decay={self.membrane_decay} is no multiple of 1/4096, the step of "
                f"the target's decays; the nearest is {nearest}"
            )
        if self.neuron == "relu" and (self.time_steps != 1 or self.routing != "dense"):
            raise ValueError(f"{where}: neuron='relu' needs time_steps=1 and routing='dense'")

    @property
    def tokens_per_side(self) -> int:
        """Height (and width) of the token grid after the stem."""
        side = self.image_size
        for stride in self.stem_strides:
            side = (side - 1) // stride + 1
        return side

    def as_dict(self) -> dict[str, object]:
        """JSON values; `model_config` reads them back."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a model is trained.

    Attributes:
        balance_weight, entropy_weight: of the load-balance and the routing-entropy loss.
        homeostatic_rate: how far the homeostatic bias moves per step against the load error.
        max_shift: augmentation, a random translation by up to this many pixels.
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
    balance_weight: float = 0.01
    entropy_weight: float = 0.001
    homeostatic_rate: float = 5e-3
    max_shift: int = 1
    threads: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        _check_types(self)
        for name in ("epochs", "batch_size", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"training: {name}={getattr(self, name)} must be at least 1")
        for name in (
            "weight_decay",
            "warmup_epochs",
            "balance_weight",
            "entropy_weight",
            "homeostatic_rate",
            "max_shift",
            "seed",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"training: {name}={getattr(self, name)} must not be negative")
        if self.seed >= 2**32:
            raise ValueError(f"training: seed={self.seed} must be below 2**32")
        if not self.learning_rate > 0 or not 0 <= self.label_smoothing < 1:
            raise ValueError("training: learning_rate must be positive, label_smoothing in [0, 1)")

    def as_dict(self) -> dict[str, object]:
        """JSON values; `train_config` reads them back."""
        return asdict(self)


def get_preset(name: str) -> ModelConfig:
    """The preset called `name`; ValueError lists the names and the closest one."""
    if name not in PRESETS:
        raise ValueError(unknown("preset", name, PRESETS))
    return PRESETS[name]


def unknown(what: str, name: str, known: object) -> str:
    """One line for a name that is not known: what was meant, and what there is."""
    names = sorted(str(k) for k in known)  # type: ignore[attr-defined]
    close = difflib.get_close_matches(str(name), names, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    return f"unknown {what} '{name}'{hint} (there are: {', '.join(names)})"


def dense_twin(config: ModelConfig) -> ModelConfig:
    """The same shape with one expert that is always on: no prompt, no router."""
    return replace(config, routing="dense", num_experts=1, top_k=1, hold="step")


def relu_twin(config: ModelConfig) -> ModelConfig:
    """The dense twin with ReLU in place of spiking neurons and a single step."""
    return replace(dense_twin(config), neuron="relu", time_steps=1)


def model_config(values: dict[str, object]) -> ModelConfig:
    """A ModelConfig from JSON values; ValueError for unknown or missing fields."""
    return _from_dict(ModelConfig, values)


def train_config(values: dict[str, object]) -> TrainConfig:
    """A TrainConfig from JSON values; ValueError for unknown or missing fields."""
    return _from_dict(TrainConfig, values)


def override(config: ModelConfig, **overrides: object) -> ModelConfig:
    """`config` with some fields exchanged; ValueError names a field that does not exist."""
    names = [f.name for f in fields(config)]
    for name in overrides:
        if name not in names:
            raise ValueError(unknown("model option", name, names))
    return replace(config, **overrides)  # type: ignore[arg-type]


def _from_dict(cls: type, values: dict[str, object]):
    names = {f.name for f in fields(cls)}
    if not isinstance(values, dict) or set(values) != names:
        raise ValueError(f"{cls.__name__} needs exactly the fields {sorted(names)}")
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


@functools.cache
def _type_hints(cls: type) -> dict[str, object]:
    """Evaluated once per class: reading a checkpoint later evaluates nothing."""
    return get_type_hints(cls)


def _check_types(config: object) -> None:
    hints = _type_hints(type(config))
    for field in fields(config):  # type: ignore[arg-type]
        value, hint = getattr(config, field.name), hints[field.name]
        choices = get_args(hint) if str(hint).startswith("typing.Literal") else ()
        if choices and value not in choices:
            raise ValueError(f"{field.name}={value!r}; use one of {', '.join(map(repr, choices))}")
        wrong = (
            (hint is int and type(value) is not int)
            or (hint is float and type(value) not in (int, float))
            or (hint is bool and type(value) is not bool)
            or (hint is str and type(value) is not str)
            or (
                hint == tuple[int, ...]
                and not (isinstance(value, tuple) and all(type(v) is int for v in value))
            )
        )
        if wrong:
            raise TypeError(f"{field.name}={value!r} is {type(value).__name__}; needs {hint}")
        if isinstance(value, (int, float)) and not math.isfinite(value):
            raise ValueError(f"{field.name}={value!r} must be a finite number")


PRESETS: dict[str, ModelConfig] = {
    "digits": ModelConfig(preset="digits"),
}
