"""How active a model is on the held-out images: firing rates, expert loads, routing entropy."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from spikingmoe.layers.norse_neuron import LIF_MODULES
from spikingmoe.layers.router import RoutingInfo
from spikingmoe.model import SpikingTransformer
from spikingmoe.train.devices import add_over_devices


class Activity:
    """Sums over the batches of one validation, on the device.

    A population's firing rate is the share of (step, neuron) with a spike, over the rows that were
    computed: an expert's neurons count where their gate was open, if only those are computed.
    """

    def __init__(self, model: SpikingTransformer) -> None:
        modules = dict(model.named_modules())
        routers = {id(router) for router in model.routers()}
        self.populations = {n: m for n, m in modules.items() if isinstance(m, LIF_MODULES)}
        self.routers = [name for name, module in modules.items() if id(module) in routers]
        self._hooks: list[RemovableHandle] = []
        self._spikes: dict[str, Tensor] = {}
        self._neurons: dict[str, int] = {}
        self._routing: list[Tensor] = []
        self._samples = 0

    def start(self) -> None:
        """Begin to count."""
        self._spikes, self._neurons, self._routing, self._samples = {}, {}, [], 0
        self._hooks = [
            module.register_forward_hook(self._counter(name))
            for name, module in self.populations.items()
        ]

    def _counter(self, name: str) -> Callable[[nn.Module, tuple, Tensor], None]:
        def count(_module: nn.Module, _inputs: tuple, spikes: Tensor) -> None:
            self._spikes[name] = self._spikes.get(name, 0) + torch.count_nonzero(spikes)
            self._neurons[name] = self._neurons.get(name, 0) + spikes.numel()

        return count

    def note(self, routing: tuple[RoutingInfo, ...], samples: int) -> None:
        """What the routers decided on a batch of `samples`."""
        rows = [torch.cat([i.load.flatten(), i.losses.entropy.flatten()]) for i in routing]
        rows = [row.double() * samples for row in rows]
        self._routing = (
            [a + b for a, b in zip(self._routing, rows, strict=True)] if self._samples else rows
        )
        self._samples += samples

    def stop(self) -> None:
        """Take the hooks off."""
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def record(self, device: torch.device) -> dict[str, float]:
        """`firing_rate/POPULATION`, `expert_load/ROUTER/EXPERT`, `routing_entropy/ROUTER`.

        Loads are means over batches, weighted by their samples; the entropy is 0 where every choice is
        sure and 1 where all experts are as likely.
        """
        names = list(self.populations)
        pairs = [[float(self._spikes.get(n, 0)), float(self._neurons.get(n, 0))] for n in names]
        flat = [value for pair in pairs for value in pair] + [float(self._samples)]
        sums = torch.tensor(flat, dtype=torch.float64, device=device)
        sums = add_over_devices(torch.cat([sums, *self._routing])).tolist()
        found = {
            f"firing_rate/{name}": sums[2 * i] / sums[2 * i + 1]
            for i, name in enumerate(names)
            if sums[2 * i + 1]
        }
        samples, rest = sums[2 * len(names)], sums[2 * len(names) + 1 :]
        if not samples:
            return found
        for name, row in zip(self.routers, self._routing, strict=False):
            *load, entropy = [value / samples for value in rest[: len(row)]]
            rest = rest[len(row) :]
            found |= {f"expert_load/{name}/{e}": share for e, share in enumerate(load)}
            found[f"routing_entropy/{name}"] = entropy
        return found
