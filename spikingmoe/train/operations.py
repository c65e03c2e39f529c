"""Synaptic operations of the lowered network, counted in torch so that training can lower them.

Adapter between training and the lowering: the graph says what each spike costs, torch says who spikes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hardware.ir.fan_out import fan_out
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import LIF, Input, Readout, Relay
from hardware.lowering.builder import INPUT
from hardware.lowering.from_torch import lower, lower_with_taps
from hardware.simulate import simulate
from spikingmoe.config.model import Dispatch
from spikingmoe.layers.expert import Experts
from spikingmoe.model import SpikingTransformer


@dataclass(frozen=True)
class Activity:
    """What one batch sent.

    Attributes:
        synops: synaptic operations per image (accumulates and multiply-accumulates), a scalar with a
            gradient through the spikes; relays of the stream left out.
        rates: (P,) spikes per neuron and step of each LIF population, with gradients.
    """

    synops: Tensor
    rates: Tensor


class OperationMeter:
    """Counts what `hardware.energy.count_operations` counts on `lower(model)`, with gradients.

        synops per image = sum over populations and neurons of spikes * fan-out / images

    The fan-out of a neuron is the number of its stored connections in the lowered graph: exact at the
    borders of maps, through experts only where the gate is open. Spikes carry their surrogate's
    gradient, gates that of `gate_gradient`. Without a gradient are the comparators of a router, its
    graded scores, the image, constants and clocks. The relays of the residual stream exist only on
    chip: `relay_synops` counts them by the reference on a few images, as a constant.

    After Sorbaro 2020 (Front. Neurosci. 14:662), who penalise the same count on sequential networks.

    Args:
        model: which can be lowered.

    Raises:
        LoweringError: the model cannot be lowered, so nothing says what its spikes cost.
    """

    def __init__(self, model: SpikingTransformer) -> None:
        self.model = model
        graph, taps = lower_with_taps(_generic(model))
        self.graph = graph
        fan_outs = {
            name: torch.from_numpy(sum(fan_out(graph, s) for s in graph.outgoing(name)))
            for name in graph.populations
            if graph.outgoing(name)
        }
        self.taps = {n: t for n, t in taps.items() if n in fan_outs}
        self.fan_outs = {name: fan_outs[name].double() for name in self.taps}
        self.pixels = fan_outs[INPUT].double()
        self.relays = [
            name
            for name, population in graph.populations.items()
            if isinstance(population, Relay) and name not in self.taps
        ]
        self.fixed = sum(_clocked(graph, name, fan_outs[name]) for name in fan_outs)
        self.most = self._every_neuron_always(fan_outs)
        self.populations = [
            name
            for name in self.taps
            if isinstance(p := graph.populations[name], LIF) and p.role == "neuron"
        ]
        self._experts = [m for m in model.modules() if isinstance(m, Experts)]
        self._seen: dict[str, tuple[tuple[Tensor, ...], Tensor]] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        """The model's forward passes within the block are seen by `measure`.

        Experts compute in the masked form meanwhile: the grouped one holds no closed gate's neurons.
        """
        before: list[Dispatch] = [experts.dispatch for experts in self._experts]
        handles = []
        for path in {tap.module for tap in self.taps.values()}:

            def keep(
                _module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor, path: str = path
            ) -> None:
                self._seen[path] = (inputs, output)

            handles.append(self.model.get_submodule(path).register_forward_hook(keep))
        try:
            for experts in self._experts:
                experts.dispatch = "masked"
            yield
        finally:
            for handle in handles:
                handle.remove()
            for experts, dispatch in zip(self._experts, before, strict=True):
                experts.dispatch = dispatch
            self._seen = {}

    def measure(self, images: Tensor) -> Activity:
        """What the last forward pass, of `images` as the model takes them, sent."""
        samples = images.shape[1] if images.ndim == 5 else len(images)
        total = self._pixels(images) + self.fixed * samples
        rates = []
        for name, tap in self.taps.items():
            sent = tap.view(*self._seen[tap.module])
            graded = isinstance(self.graph.populations[name], Relay)
            counted = ((sent != 0) if graded else sent).sum((0, 1), dtype=torch.float64)
            total = total + counted.flatten() @ self.fan_outs[name].to(counted.device)
            if name in self.populations:
                rates.append(counted.mean() / (len(sent) * samples))
        return Activity(total / samples, torch.stack(rates))

    def floor(self, images: Tensor) -> float:
        """Operations per image of pixels, constants and clocks: those of a silent network."""
        samples = images.shape[1] if images.ndim == 5 else len(images)
        return float(self._pixels(images)) / samples + self.fixed

    def relay_synops(self, images: Tensor) -> float:
        """Operations per image of the stream's relays, counted by the reference on `images` (S, ...)."""
        if not self.relays:
            return 0.0
        graph = lower(self.model)
        trace = simulate(graph, images.cpu(), record=self.relays)
        total = 0
        for name in self.relays:
            sent = (trace.spikes[name] != 0).sum((0, 1)).ravel()
            total += sum(int(sent @ fan_out(graph, s)) for s in graph.outgoing(name))
        return total / len(images)

    def _pixels(self, images: Tensor) -> Tensor:
        frames = images if images.ndim == 5 else images[None]
        repeats = self.graph.time_steps // len(frames)
        sent = (frames != 0).sum((0, 1), dtype=torch.float64).movedim(0, -1).flatten()
        return repeats * (sent @ self.pixels.to(sent.device))

    def _every_neuron_always(self, fan_outs: dict[str, Tensor]) -> float:
        silent = (Input, Readout)
        counted = (n for n in fan_outs if not isinstance(self.graph.populations[n], silent))
        return float(self.graph.time_steps * sum(int(fan_outs[name].sum()) for name in counted))


def _clocked(graph: SpikeGraph, name: str, reached: Tensor) -> float:
    """Operations per image of an input that is always 1, or at one step."""
    population = graph.populations[name]
    if not isinstance(population, Input) or population.kind not in ("constant", "clock"):
        return 0.0
    steps = graph.time_steps if population.kind == "constant" else 1
    return float(steps * int(reached.sum()))


def _generic(model: SpikingTransformer) -> SpikingTransformer:
    """A copy without biases of exactly 0, which have no synapse: those of a new network all are."""
    model = copy.deepcopy(model).cpu()
    with torch.no_grad():
        for name, values in [*model.named_parameters(), *model.named_buffers()]:
            if name.endswith(("bias", "learned_threshold")):
                values[values == 0] = 0.5
    return model
