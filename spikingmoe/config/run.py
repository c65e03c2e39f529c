"""Where and how a training runs: what does not change which network comes out (beyond rounding)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from spikingmoe.config.fields import check_types

DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of a training run that are no part of its recipe, and may differ when it is resumed.

    Attributes:
        device: "auto" (a CUDA device if there is one), "cpu", "cuda" or "cuda:N".
        devices: how many devices share each batch.
        workers: processes that draw the sample order ahead; the batches are the same with any number.
        save_minutes: a checkpoint is also written this often within an epoch; 0: at epochs' ends only.
        logs: write RUN/logs (a CSV table, TensorBoard events) and RUN/curves.png.
    """

    device: str = "auto"
    devices: int = 1
    workers: int = 0
    save_minutes: float = 10.0
    logs: bool = True

    def __post_init__(self) -> None:
        check_types(self)
        if not DEVICE.fullmatch(self.device):
            raise ValueError(f"device={self.device!r}; use auto, cpu, cuda or cuda:N")
        if self.devices < 1 or self.workers < 0 or self.save_minutes < 0:
            raise ValueError(
                f"devices={self.devices} must be at least 1, workers={self.workers} and "
                f"save_minutes={self.save_minutes} at least 0"
            )
        if self.devices > 1 and ":" in self.device:
            raise ValueError(
                f"device={self.device!r} is one device, devices={self.devices} asks for more; "
                f"use --device cuda, or --devices 1"
            )
