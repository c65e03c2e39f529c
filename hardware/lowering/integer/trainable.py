"""A network whose forward pass is the integer network, and whose weights can still be trained.

Real weights and biases are kept; each forward pass rounds them to the grid of a `QuantisationPlan`, as
`apply_plan` does. Gradients pass through the rounding as if it were not there (Bengio et al. 2013)
and not where a weight is clipped, and through spikes by the surrogate. They do not reach what chooses
experts (scores, comparators, gates): its weights stay as they are.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import LIF, Readout
from hardware.ir.synapses import AnySynapse, Conv2d, Dense
from hardware.lowering.integer.network import IntegerNetwork
from hardware.lowering.integer.neuron import SpikeFunction
from hardware.passes.plan import QuantisationPlan, apply_plan

AND = "and"
TRAINED_ROLES = frozenset({"neuron", AND, "or"})  # gradients pass through their spikes


class GridNetwork(IntegerNetwork):
    """A float graph and its plan, as a trainable integer network.

    Args:
        graph: balanced, floating point.
        plan: of this graph; made with some headroom, so that weights may grow.
        surrogate: derivative of the spikes.
    """

    def __init__(self, graph: SpikeGraph, plan: QuantisationPlan, surrogate: SpikeFunction) -> None:
        super().__init__(apply_plan(graph, plan), surrogate=surrogate, check=False)
        self.real, self.plan = graph, plan
        self.weights, self.biases = nn.ParameterDict(), nn.ParameterDict()
        self.parameter_of: dict[int, str] = {}
        self.original: dict[int, AnySynapse] = {}
        for index, (fixed, synapse) in enumerate(
            zip(self.graph.synapses, graph.synapses, strict=False)
        ):
            if self._is_trained(synapse):
                key, block = _key(synapse), _repeated_block(graph, synapse)
                if key not in self.weights:
                    self.weights[key] = nn.Parameter(torch.from_numpy(block).float())
                self.parameter_of[id(fixed)] = key
                self.original[id(fixed)] = replace(synapse, exponent=plan.exponents[index])
        for name, population in graph.populations.items():
            if isinstance(population, (LIF, Readout)) and self._learns_bias(name):
                values = torch.from_numpy(np.asarray(population.bias, dtype=np.float64))
                self.biases[str(self.index[name])] = nn.Parameter(values.float())
        # The coarse part of a large bias: here a bias is one number, however large.
        self.coarse = {
            id(s)
            for s in self.graph.synapses[len(graph.synapses) :]
            if str(self.index[s.target]) in self.biases
        }

    def _is_trained(self, synapse: AnySynapse) -> bool:
        target = self.graph.populations[synapse.target]
        learns = target.role in ("neuron", "relay", "readout")
        return learns and isinstance(synapse, (Conv2d, Dense))

    def _learns_bias(self, name: str) -> bool:
        """Where a bias is; a population that experts' gates drive has none, so that it stays silent."""
        population = self.real.populations[name]
        assert isinstance(population, (LIF, Readout))
        return population.role in ("neuron", "readout") and bool(np.any(population.bias != 0))

    def weight(self, synapse: AnySynapse) -> Tensor:
        key = self.parameter_of.get(id(synapse))
        if id(synapse) in self.coarse:
            return torch.zeros_like(super().weight(synapse))
        if key is None:
            return super().weight(synapse)
        original = self.original[id(synapse)]
        grid = self.plan.grid(self.real, original)
        unit, top = 2.0**original.exponent * grid.step, grid.largest // grid.step
        # In float64, as `apply_plan` computes it: the same side of every tie.
        steps = self.weights[key].double() * self.plan.ratio(self.real, original) / unit
        steps = steps.clamp(-top, top)
        steps = steps + (steps.round() - steps).detach()
        return _repeat(steps * unit, original).to(self.formats[synapse.target])

    def bias(self, name: str) -> Tensor:
        key = str(self.index[name])
        if key not in self.biases:
            return super().bias(name)
        wanted = self.biases[key].double() * self.plan.scales[name]
        return (wanted + (wanted.round() - wanted).detach()).to(self.formats[name])

    def _spikes(
        self, name: str, population: LIF, current: Tensor, arriving: list[Tensor]
    ) -> Tensor:
        if population.role not in TRAINED_ROLES:
            with torch.no_grad():
                return super()._spikes(name, population, current, arriving)
        if population.role == AND and len(arriving) == 2:
            # The product of two spikes has the derivatives that an AND should have.
            both = (arriving[0] / population.scale) * (arriving[1] / population.scale)
            return both.expand_as(current)
        return super()._spikes(name, population, current, arriving)

    def trained_graph(self) -> SpikeGraph:
        """The float graph with the weights as they are now; `apply_plan` makes it the integers."""
        synapses = []
        for fixed, synapse in zip(self.graph.synapses, self.real.synapses, strict=False):
            key = self.parameter_of.get(id(fixed))
            if key is not None:
                values = _repeat(self.weights[key].detach().cpu().double(), synapse)
                synapse = replace(synapse, weight=values.numpy())
            synapses.append(synapse)
        populations = []
        for name, population in self.real.populations.items():
            key = str(self.index[name])
            if key in self.biases:
                assert isinstance(population, (LIF, Readout))
                values = self.biases[key].detach().cpu().double().numpy()
                population = replace(population, bias=values)
            populations.append(population)
        return self.real.with_(populations=populations, synapses=synapses)


def _key(synapse: AnySynapse) -> str:
    """One key for copies of a synapse (a stream unrolled to several readers): they stay the same."""
    content = synapse.weight.tobytes() + f"{synapse.source} {synapse.weight.shape}".encode()
    return hashlib.sha256(content).hexdigest()


def _repeated_block(graph: SpikeGraph, synapse: AnySynapse) -> np.ndarray:
    """The weights; of a dense synapse that repeats those of one position at each, that one's."""
    weight = synapse.weight.astype(np.float64)
    if isinstance(synapse, Dense):
        channels = graph.populations[synapse.source].shape[-1]
        blocks = weight.reshape(len(weight), -1, channels)
        if np.all(blocks == blocks[:, :1]):
            return blocks[:, 0].copy()
    return weight


def _repeat(block: Tensor, synapse: AnySynapse) -> Tensor:
    return block if block.dim() == 4 else block.repeat(1, synapse.weight.shape[1] // block.shape[1])
