"""Where the time of a training step goes, by what is computed: from `torch.profiler`, grouped.

Forward, an operation belongs to the innermost module that is known to a group; backward, to the
group of the forward operation that it is the gradient of (the profiler gives both the same sequence
number). Convolutions and matrix products are told by their names wherever they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from spikingmoe.layers.expert import Experts
from spikingmoe.layers.gated_norm import GatedBatchNorm
from spikingmoe.layers.norse_neuron import LIF_MODULES
from spikingmoe.layers.router import Router

CONVOLUTION, PRODUCTS = "convolution", "matrix products"
NEURONS, ROUTING = "neurons and norm", "routing and dispatch"
OPTIMISER, OTHER = "optimiser", "other"
GROUPS = (CONVOLUTION, PRODUCTS, NEURONS, ROUTING, OPTIMISER, OTHER)
PREFIX = "group: "
BY_MODULE: tuple[tuple[tuple[type, ...], str], ...] = (
    ((*LIF_MODULES, nn.BatchNorm1d, nn.BatchNorm2d, GatedBatchNorm), NEURONS),
    ((Router, Experts), ROUTING),
)
#: Whole words of an operation's name; fused neurons are one operation whose name holds `lif`.
BY_NAME: tuple[tuple[tuple[str, ...], str], ...] = (
    (("conv",), CONVOLUTION),
    (("::mm", "::bmm", "::addmm", "::baddbmm", "mkldnn_linear"), PRODUCTS),
    (("batch_norm", "lif"), NEURONS),
)


def profile_step(
    model: nn.Module, step: Callable[[], object], *, steps: int, device: str
) -> list[dict[str, object]]:
    """Milliseconds and share of each group, for one call of `step` (forward, backward, optimiser).

    Processor time of operations on the CPU, kernel time on a GPU; each operation without those
    that it calls, so that the groups add up to all of it.
    """
    step()
    activities = [ProfilerActivity.CPU]
    if device == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with _marked(model), profile(activities=activities) as profiler:
        for _ in range(steps):
            step()
    events = list(profiler.events())
    groups = _forward_groups(events)
    spent = dict.fromkeys(GROUPS, 0.0)
    for event in events:
        if event.name.startswith(PREFIX):
            continue
        time_us = event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
        spent[_group_of(event, groups)] += time_us / 1e3 / steps
    total = sum(spent.values()) or 1.0
    return [
        {"group": group, "milliseconds": ms, "share": ms / total} for group, ms in spent.items()
    ]


@contextmanager
def _marked(model: nn.Module) -> Iterator[None]:
    """Every module of a group opens a named range around its forward pass."""
    handles, ranges = [], []

    def enter(group: str) -> Callable[..., None]:
        def hook(*_: object) -> None:
            ranges.append(record_function(PREFIX + group))
            ranges[-1].__enter__()

        return hook

    def leave(*_: object) -> None:
        ranges.pop().__exit__(None, None, None)

    try:
        for module in model.modules():
            for kinds, group in BY_MODULE:
                if isinstance(module, kinds):
                    handles.append(module.register_forward_pre_hook(enter(group)))
                    handles.append(module.register_forward_hook(leave))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _ancestors(event: Any) -> Iterator[Any]:
    while event is not None:
        yield event
        event = event.cpu_parent


def _forward_groups(events: list[Any]) -> dict[int, str]:
    """{sequence number of a forward operation: the group of the range that it is in}."""
    groups: dict[int, str] = {}
    for event in events:
        if event.sequence_nr < 0 or event.name.startswith("autograd::engine"):
            continue
        inside = [e.name for e in _ancestors(event)]
        if any(name.startswith("autograd::engine") for name in inside):
            continue
        ranges = [name.removeprefix(PREFIX) for name in inside if name.startswith(PREFIX)]
        if ranges:
            groups.setdefault(event.sequence_nr, ranges[0])
    return groups


def _group_of(event: Any, groups: dict[int, str]) -> str:
    names = [e.name for e in _ancestors(event)]
    if any(name.startswith("Optimizer.") for name in names):
        return OPTIMISER
    for name in names:
        for words, group in BY_NAME:
            if any(word in name.lower() for word in words):
                return group
    for ancestor in _ancestors(event):
        if ancestor.name.startswith(PREFIX):
            return ancestor.name.removeprefix(PREFIX)
        if ancestor.name.startswith("autograd::engine"):
            return groups.get(ancestor.sequence_nr, OTHER)
    return OTHER
