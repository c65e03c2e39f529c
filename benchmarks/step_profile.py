"""Where the time of a training step goes, by what is computed: from `torch.profiler`, grouped.

Forward, an operation belongs to the innermost module that is known to a group; backward, to the
group of the forward operation that it is the gradient of (the profiler gives both the same sequence
number). Convolutions and matrix products are told by their names wherever they are.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from spikingmoe.layers.expert import Experts
from spikingmoe.layers.gated_norm import GatedBatchNorm
from spikingmoe.layers.linear import LinearNorm
from spikingmoe.layers.norse_neuron import LIF_MODULES
from spikingmoe.layers.router import Router
from spikingmoe.layers.stem import ConvNorm

CONVOLUTION, PRODUCTS = "convolution", "matrix products"
NEURONS, ROUTING = "neurons and norm", "routing and dispatch"
OPTIMISER, OTHER = "optimiser", "other"
GROUPS = (CONVOLUTION, PRODUCTS, NEURONS, ROUTING, OPTIMISER, OTHER)
PREFIX = "group: "
#: (modules, their methods, the group of what these do).
BY_MODULE: tuple[tuple[tuple[type, ...], tuple[str, ...], str], ...] = (
    ((*LIF_MODULES, nn.BatchNorm1d, nn.BatchNorm2d, GatedBatchNorm), ("forward",), NEURONS),
    ((ConvNorm, LinearNorm), ("forward", "fire"), NEURONS),
    ((Router, Experts), ("forward",), ROUTING),
)
#: Parts of an operation's name. Fused kernels are single operations, `_NormLif` and the like.
BY_NAME: tuple[tuple[tuple[str, ...], str], ...] = (
    (("conv",), CONVOLUTION),
    (("::mm", "::bmm", "::addmm", "::baddbmm", "mkldnn_linear"), PRODUCTS),
    (("norm", "lif"), NEURONS),
)


def profile_step(
    model: nn.Module, step: Callable[[], object], *, steps: int, device: str
) -> list[dict[str, object]]:
    """Milliseconds and share of each group, for one call of `step` (forward, backward, optimiser).

    Time of the processor, or on a GPU of its kernels; each operation without those that it calls, so
    that the groups add up to all of it. On the CPU what Python does in between counts where it does it.
    """
    step()
    activities = [ProfilerActivity.CPU]
    if device == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with _marked(model), profile(activities=activities) as profiler:
        for _ in range(steps):
            with record_function(PREFIX + OTHER):
                step()
    events = list(profiler.events())
    groups = _forward_groups(events)
    spent = dict.fromkeys(GROUPS, 0.0)
    for event in events:
        if device == "cuda" and event.name.startswith(PREFIX):
            continue  # what the profiler shows of a range there is the time of its kernels again
        time_us = event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
        spent[_group_of(event, groups)] += time_us / 1e3 / steps
    total = sum(spent.values()) or 1.0
    return [
        {"group": group, "milliseconds": ms, "share": ms / total} for group, ms in spent.items()
    ]


@contextmanager
def _marked(model: nn.Module) -> Iterator[None]:
    """Every module of a group opens a named range around its methods.

    The methods are replaced on the modules, since a hook on a neuron or a norm would rule the fused
    kernels out, and the profile would be that of another step.
    """
    replaced: list[tuple[nn.Module, str]] = []
    try:
        for module in model.modules():
            for kinds, methods, group in BY_MODULE:
                if isinstance(module, kinds):
                    for method in methods:
                        setattr(module, method, _in_range(getattr(module, method), group))
                        replaced.append((module, method))
        yield
    finally:
        for module, method in replaced:
            delattr(module, method)  # the class's own is there again


def _in_range(call: Callable[..., Any], group: str) -> Callable[..., Any]:
    @functools.wraps(call)
    def within(*args: Any, **kwargs: Any) -> Any:
        with record_function(PREFIX + group):
            return call(*args, **kwargs)

    return within


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
    names = [e.name for e in _ancestors(event) if not e.name.startswith(PREFIX)]
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
