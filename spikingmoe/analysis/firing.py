"""Firing rates of neuron populations, recorded by hooks while a model runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from spikingmoe.layers.expert import Experts
from spikingmoe.layers.norse_neuron import LIF_MODULES


@dataclass
class Population:
    """Spikes of one population, summed over steps and images: a number per neuron.

    Attributes:
        spikes: (neurons...) in the shape of one image at one step.
        presented: steps times images.
    """

    spikes: Tensor | None = None
    presented: int = 0

    def add(self, spikes: Tensor) -> None:
        """Count (T, B, neurons...)."""
        counted = spikes.detach().sum((0, 1), dtype=torch.float64).cpu()
        self.spikes = counted if self.spikes is None else self.spikes + counted
        self.presented += spikes.shape[0] * spikes.shape[1]

    @property
    def rate(self) -> float:
        """Spikes per neuron and step."""
        assert self.spikes is not None
        return float(self.spikes.mean() / self.presented)

    @property
    def silent_share(self) -> float:
        """Share of the neurons that never spiked."""
        assert self.spikes is not None
        return float((self.spikes == 0).double().mean())


@dataclass
class FiringRecord:
    """Populations by the dotted name of their module."""

    populations: dict[str, Population] = field(default_factory=dict)
    latest: dict[str, Tensor] = field(default_factory=dict)

    def count_latest(self) -> None:
        """Count what every population did last: a chain in time runs the window several times."""
        for name, spikes in self.latest.items():
            self.populations.setdefault(name, Population()).add(spikes)
        self.latest.clear()

    def hidden_spikes(self, experts: str) -> Tensor:
        """(E, F) spikes of the hidden neurons of the experts at a dotted name, over all tokens."""
        spikes = self.populations[f"{experts}.neuron"].spikes
        assert spikes is not None
        return spikes.sum(1)  # (E, N, F)


@contextmanager
def record_firing(model: nn.Module) -> Iterator[FiringRecord]:
    """Count the spikes of every LIF population of `model` while the context is open.

    Experts compute in the masked form meanwhile: the grouped one has no population to look at.
    """
    record = FiringRecord()
    handles, dispatches = [], []
    names = {module: name for name, module in model.named_modules()}
    experts = [module for module in names if isinstance(module, Experts)]
    hidden = {module.neuron for module in experts}

    def hook(module: nn.Module, _inputs: object, spikes: Tensor) -> None:
        batch_second = spikes.movedim(1, 2) if module in hidden else spikes  # (T, E, B, N, F)
        record.latest[names[module]] = batch_second.detach()

    try:
        for mixture in experts:
            dispatches.append((mixture, mixture.dispatch))
            mixture.dispatch = "masked"
        for module in names:
            if isinstance(module, LIF_MODULES):
                handles.append(module.register_forward_hook(hook))
        handles.append(model.register_forward_hook(lambda *_: record.count_latest()))
        yield record
    finally:
        for handle in handles:
            handle.remove()
        for mixture, dispatch in dispatches:
            mixture.dispatch = dispatch
