"""How a graph is run on Lava: which processes, which models, which schedule."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from hardware.errors import BackendError

NetworkKind = Literal["fused", "nested", "stock", "chip"]
ConvAs = Literal["auto", "sparse", "conv"]
Schedule = Literal["free", "stepwise"]
StockModels = Literal["lava", "fast"]

BACKEND_NAMES: dict[NetworkKind, str] = {
    "fused": "lava",
    "nested": "lava-nested",
    "stock": "lava-stock",
    "chip": "loihi",
}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Choices of a run; none of them changes a spike.

    Attributes:
        network: "fused" runs a few segments, each computed by one process; "nested" has the same
            segments, each expanded into its network of stock processes; "stock" is one network of
            stock processes; "chip" is that network for a Loihi 2 board (`hardware.lava.loihi`).
        segments: how many; None: one per core that may be used.
        at_once: hardware steps per message between fused segments; None chooses. Only "fused".
        stock_models: "lava" are Lava's own models of its synapses, "fast" ours of the same processes.
        conv_as: "sparse" or "conv" forces one stock process for convolutions; "auto" chooses.
        schedule: "free" lets every process go on as soon as it has its inputs; "stepwise" keeps
            Lava's global step, two to three times slower.

    Raises:
        BackendError: naming the setting, what was got and what is allowed.
    """

    network: NetworkKind = "fused"
    segments: int | None = None
    at_once: int | None = None
    stock_models: StockModels = "lava"
    conv_as: ConvAs = "auto"
    schedule: Schedule = "free"

    def __post_init__(self) -> None:
        for name, allowed in (
            ("network", NetworkKind),
            ("stock_models", StockModels),
            ("conv_as", ConvAs),
            ("schedule", Schedule),
        ):
            if getattr(self, name) not in get_args(allowed):
                raise BackendError(
                    f"{name}={getattr(self, name)!r} is unknown; use {' or '.join(get_args(allowed))}"
                )
        for name in ("segments", "at_once"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise BackendError(f"{name}={value!r} must be a positive whole number, or None")
        if self.network != "fused" and self.at_once not in (None, 1):
            raise BackendError(
                f"at_once={self.at_once}: stock processes take one step per message; "
                f"use network='fused', or leave it out"
            )
