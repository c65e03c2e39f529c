"""Which device trains, in which precision, and what several of them agree on at each step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from spikingmoe.config import RunOptions, TrainConfig
from spikingmoe.layers.router import RoutingInfo


@dataclass(frozen=True)
class Place:
    """One process among those that train."""

    device: torch.device
    rank: int = 0
    world: int = 1


def choose_device(name: str) -> torch.device:
    """The device called `name`: auto, cpu, cuda or cuda:N; ValueError for one that is not there."""
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda", 0) if there else torch.device("cpu")
    device = torch.device(name)
    if device.type == "cuda":
        index = device.index or 0
        if index >= there:
            raise ValueError(
                f"device={name!r}: torch {torch.__version__} sees {there} CUDA devices; use cpu, or "
                f"a torch that was built for this machine's CUDA"
            )
        return torch.device("cuda", index)
    return device


def check_devices(options: RunOptions, settings: TrainConfig) -> torch.device:
    """The first device of a run; ValueError if there are not as many as it asks for."""
    device = choose_device(options.device)
    if device.type == "cuda" and options.devices > torch.cuda.device_count():
        raise ValueError(
            f"devices={options.devices}: there are {torch.cuda.device_count()} CUDA devices"
        )
    if options.devices > settings.batch_size:
        raise ValueError(
            f"devices={options.devices} share batches of batch_size={settings.batch_size}; "
            f"use fewer devices or larger batches"
        )
    return device


def trainer_options(place: Place, settings: TrainConfig) -> dict[str, Any]:
    """What Lightning's trainer must know of the device and of the precision."""
    on_cuda = place.device.type == "cuda"
    devices: int | list[int] = [place.device.index or 0] if on_cuda else 1
    return {
        "accelerator": place.device.type,
        "devices": place.world if place.world > 1 else devices,
        # Some parameters have no gradient: a router that is trained by nothing, a frozen hash.
        "strategy": _ddp(on_cuda) if place.world > 1 else "auto",
        "precision": "bf16-mixed" if settings.precision == "bf16" else "32-true",
        "use_distributed_sampler": False,
    }


def _ddp(on_cuda: bool) -> Any:
    from lightning.pytorch.strategies import DDPStrategy

    return DDPStrategy(
        process_group_backend="nccl" if on_cuda else "gloo",
        find_unused_parameters=True,
        broadcast_buffers=False,  # `share_norm_statistics` averages them
    )


@contextmanager
def fast_matrix_products(device: torch.device) -> Iterator[None]:
    """TF32 and cuDNN's choice of the fastest convolution, on CUDA, within the block."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.benchmark = before[1]


def several_devices() -> bool:
    """Whether other processes train the same model."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def add_over_devices(values: Tensor) -> Tensor:
    """`values` summed over all devices, in place; unchanged on one device."""
    if several_devices():
        dist.all_reduce(values)
    return values


def largest_over_devices(value: int, device: torch.device) -> int:
    """The largest of all devices' values, so that they do the same next."""
    if not several_devices():
        return value
    largest = torch.tensor(value, device=device)
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return int(largest)


def joint_routing(routing: Sequence[RoutingInfo], share: float) -> tuple[RoutingInfo, ...]:
    """The load and the opening rate of each router over all devices.

    Args:
        share: of this device in the samples of the step.
    """
    if not several_devices() or not routing:
        return tuple(routing)
    counts = [info.gates.flatten(0, -2).sum(0, dtype=torch.float64) for info in routing]
    rates = [info.open_rate.double() * share for info in routing]
    sizes = [len(part) for part in (*counts, *rates)]
    if share == 0:  # a sample that stands in where the batch had none left
        counts = [torch.zeros_like(count) for count in counts]
    parts = add_over_devices(torch.cat([*counts, *rates])).split(sizes)
    n = len(routing)
    return tuple(
        replace(
            info,
            load=(count / count.sum().clamp(min=1.0)).to(info.load.dtype),
            open_rate=rate.to(info.open_rate.dtype),
        )
        for info, count, rate in zip(routing, parts[:n], parts[n:], strict=True)
    )


@torch.no_grad()
def share_norm_statistics(model: nn.Module) -> None:
    """Give every device the mean of all devices' running statistics.

    Each device normalises by the statistics of its own part of the batch.
    """
    if not several_devices():
        return
    buffers = [
        b for name, b in model.named_buffers() if name.endswith(("running_mean", "running_var"))
    ]
    if buffers:
        flat = torch.cat([b.flatten() for b in buffers])
        parts = (
            add_over_devices(flat).div_(dist.get_world_size()).split([b.numel() for b in buffers])
        )
        for buffer, part in zip(buffers, parts, strict=True):
            buffer.copy_(part.view_as(buffer))
