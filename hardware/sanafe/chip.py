"""A graph as a network of SANA-FE's: the only module that imports it, in an interpreter of its own.

SANA-FE (Boyle et al., GPL-3.0) is a simulator by others, its Loihi 1 fitted on silicon. Its
architecture file is read where it is installed, and changed in memory.
"""

from __future__ import annotations

import importlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hardware.errors import BackendError
from hardware.ir.arithmetic import MAX_V
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import LIF, Input, Population, Readout, size
from hardware.sanafe.counts import resets
from hardware.sanafe.detail import SYNAPSES, Detail, DetailLog
from hardware.sanafe.placement import Placement

sanafe: Any = importlib.import_module("sanafe")  # compiled: type checkers see no names in it

DENDRITE = "loihi_dendrites_delay"
NEVER = 2**24  # a threshold that no readout can reach: its input stays within 2^23
SATURATED = MAX_V / 64  # where Loihi's v stops; SANA-FE's goes on
EDGES_AT_ONCE = 100_000
PARTS = ("synapse", "dendrite", "soma", "network", "total")


@dataclass
class Recording:
    """What a run gave.

    Attributes:
        sent: by population, (hardware steps, n): spikes, or the values of a readout.
        energy_pj: by part of the chip.
    """

    sent: dict[str, np.ndarray]
    energy_pj: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PARTS, 0.0))
    latency_us: float = 0.0
    hops: int = 0
    messages: int = 0
    detail: Detail | None = None


def architecture_text(inputs_per_core: int, *, log_energy: bool = False) -> str:
    """SANA-FE's Loihi 1, with delays that keep their spikes and only as many input units as are needed.

    Args:
        log_energy: have it tell the energy of each unit of each core.

    Raises:
        BackendError: the installed file is not the one that is known.
    """
    text = (Path(sanafe.__file__).parent / "examples" / "loihi.yaml").read_text()
    for old, new in (
        ("buffer_position: soma", "buffer_position: dendrite"),
        ("buffer_inside_unit: false", "buffer_inside_unit: true"),
        ("loihi_inputs[0..1023]", f"loihi_inputs[0..{inputs_per_core}]"),
    ):
        if text.count(old) != 1:
            raise BackendError(
                f"SANA-FE's file loihi.yaml has no single '{old}'; "
                f"run `pip install sanafe==2.2.9`, which is known"
            )
        text = text.replace(old, new)
    if log_energy:
        for model, units in (("leaky_integrate_fire", 1), ("current_based", len(SYNAPSES))):
            line = f"model: {model}\n"
            if text.count(line) != units:
                raise BackendError(
                    f"SANA-FE's file loihi.yaml has not {units} times 'model: {model}'; "
                    f"run `pip install sanafe==2.2.9`, which is known"
                )
            text = text.replace(line, f"{line}{' ' * 16}log_energy: true\n")
    return text


class Chip:
    """A legalised graph on the simulated chip.

    Args:
        streams: what each Input sends, (hardware steps, n).
        recorded: populations whose spikes are kept; readouts are in any case.
        in_detail: keep the energy of each core, and every message by sender and core.
    """

    def __init__(
        self,
        graph: SpikeGraph,
        placement: Placement,
        streams: dict[str, np.ndarray],
        recorded: list[str],
        *,
        in_detail: bool = False,
    ) -> None:
        self.cores, self.in_detail = placement.cores_used, in_detail
        self.graph, self.steps = graph, len(next(iter(streams.values())))
        # Membranes are traced in the order of the groups' names.
        self.groups = {name: f"p{index:06d}" for index, name in enumerate(graph.populations)}
        self.names = {group: name for name, group in self.groups.items()}
        self.recorded = recorded
        slots = _input_slots(graph, placement)
        text = architecture_text(
            max((int(s.max()) for s in slots.values()), default=0), log_energy=in_detail
        )
        architecture = _load_architecture(text)
        network = sanafe.Network()
        groups = {name: self._create(network, name, placement) for name in graph.populations}
        cores = architecture.cores()
        for name, group in groups.items():
            _configure(graph.populations[name], group, streams.get(name), slots.get(name))
            for neuron, core in zip(group, placement.cores[name].tolist(), strict=True):
                neuron.map_to_core(cores[core])
        for synapse in graph.synapses:
            matrix = graph.matrix(synapse).tocoo()
            weight = matrix.data.astype(np.int64)
            whole = (
                weight << synapse.exponent
                if synapse.exponent >= 0
                else weight >> -synapse.exponent  # exact: legalise has refused the others
            )
            source, target = groups[synapse.source], groups[synapse.target]
            for start in range(0, len(whole), EDGES_AT_ONCE):
                part = slice(start, start + EDGES_AT_ONCE)
                pairs = list(zip(matrix.col[part].tolist(), matrix.row[part].tolist(), strict=True))
                values = {
                    "w": whole[part].tolist(),
                    "delay": [synapse.delay - 1] * len(pairs),
                }
                source.connect_neurons_sparse(target, values, pairs)
        self.chip = sanafe.SpikingChip(architecture)
        self.chip.load(network)

    def _create(self, network: Any, name: str, placement: Placement) -> Any:
        population = self.graph.populations[name]
        is_input = isinstance(population, Input)
        attributes: dict[str, Any] = {}
        if isinstance(population, LIF):
            attributes = {"leak_decay": population.membrane_decay}
        elif isinstance(population, Readout):
            attributes = {"leak_decay": 0.0, "threshold": NEVER}
        if not is_input:
            attributes |= {"reset_mode": "hard", "reset": 0.0}
        return network.create_neuron_group(
            self.groups[name],
            size(population),
            soma_hw_name="loihi_inputs[0]" if is_input else "loihi_lif",
            default_synapse_hw_name=SYNAPSES[placement.kinds[name]],
            default_dendrite_hw_name=DENDRITE,
            log_spikes=name in self.recorded and isinstance(population, LIF),
            log_potential=not is_input,
            model_attributes=attributes,
        )

    def run(self, progress: Callable[[int], None]) -> Recording:
        """Every hardware step; `progress` is told how many are done.

        Raises:
            BackendError: a membrane that Loihi's 24 bits would have stopped.
        """
        populations = self.graph.populations
        traced = {n: p for n, p in populations.items() if not isinstance(p, Input)}
        ends = np.cumsum([size(p) for p in traced.values()])
        recording = Recording(
            {
                n: np.zeros((self.steps, size(p)), np.int64 if isinstance(p, Readout) else bool)
                for n, p in traced.items()
                if n in self.recorded or isinstance(p, Readout)
            }
        )
        neurons = self.chip.mapped_neuron_groups
        log = DetailLog(self.names, self.cores) if self.in_detail else None
        for step in range(self.steps):
            for name in traced:
                if resets(self.graph, name, step):
                    for neuron in neurons[self.groups[name]]:
                        neuron.set_attributes(model_attributes={"potential": 0})
            result = self.chip.sim(
                1,
                timing_model="simple",
                processing_threads=1,
                spike_trace=True,
                potential_trace=True,
                perf_trace=True,
                message_trace=self.in_detail or None,
            )
            for address in result["spike_trace"][0]:
                name = self.names[address.group_name]
                recording.sent[name][step, address.neuron_offset] = True
            membranes = np.split(np.asarray(result["potential_trace"][0]), ends[:-1])
            for (name, population), values in zip(traced.items(), membranes, strict=True):
                if isinstance(population, Readout):
                    recording.sent[name][step] = values
                elif values.min(initial=0) < -SATURATED:
                    raise BackendError(
                        f"population '{name}': a membrane falls below {-SATURATED:,.0f} at hardware step "
                        f"{step}, where Loihi's 24 bits end and SANA-FE's do not; quantise with smaller weights"
                    )
            for part in PARTS:
                recording.energy_pj[part] += 1e12 * result["energy"][part]
            recording.latency_us += 1e6 * result["sim_time"]
            recording.messages += result["packets_sent"]
            recording.hops += sum(result["perf_trace"]["hops"])
            if log is not None:
                log.note(result)
            progress(step + 1)
        if log is not None:
            recording.detail = log.detail()
        return recording


def _load_architecture(text: str) -> Any:
    handle, path = tempfile.mkstemp(suffix=".yaml")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
        return sanafe.load_arch(path)
    finally:
        os.unlink(path)


def _input_slots(graph: SpikeGraph, placement: Placement) -> dict[str, np.ndarray]:
    """Each input neuron's unit on its core: those that share one corrupt each other."""
    used: dict[int, int] = {}
    slots = {}
    for name, population in graph.populations.items():
        if isinstance(population, Input):
            slots[name] = np.empty(size(population), dtype=np.int64)
            for index, core in enumerate(placement.cores[name].tolist()):
                slots[name][index] = used.get(core, 0)
                used[core] = used.get(core, 0) + 1
    return slots


def _configure(
    population: Population, group: Any, stream: np.ndarray | None, slots: np.ndarray | None
) -> None:
    """What differs from neuron to neuron."""
    if stream is not None:
        assert slots is not None
        for index, neuron in enumerate(group):
            neuron.set_attributes(
                soma_hw_name=f"loihi_inputs[{slots[index]}]",
                model_attributes={"spikes": stream[:, index].astype(int).tolist()},
            )
        return
    assert isinstance(population, (LIF, Readout))
    values = {"bias": population.bias}
    if isinstance(population, LIF):
        values["threshold"] = population.threshold
    wide = {
        what: np.broadcast_to(value, population.shape).ravel().tolist()
        for what, value in values.items()
    }
    for index, neuron in enumerate(group):
        neuron.set_attributes(model_attributes={what: wide[what][index] for what in wide})
