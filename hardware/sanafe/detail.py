"""What SANA-FE tells about single cores and messages of a run."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np

from hardware.sanafe.placement import CORES_PER_ROUTER, SynapseKind

#: Names of SANA-FE's units.
SYNAPSES: dict[SynapseKind, str] = {
    "dense": "loihi_dense_synapse",
    "sparse": "loihi_sparse_synapse",
    "convolution": "loihi_conv_synapse",
}


@dataclass(frozen=True, eq=False)
class Sent:
    """Messages of one population, a row for each (neuron, core that they went to).

    Attributes:
        neuron, core: (rows,) sender and destination.
        messages, synapses: (rows,) how many went there, and the connections that they reached there.
        east_west, north_south: (rows,) tiles that one of them passes.
    """

    neuron: np.ndarray
    core: np.ndarray
    messages: np.ndarray
    synapses: np.ndarray
    east_west: np.ndarray
    north_south: np.ndarray


@dataclass(frozen=True, eq=False)
class Detail:
    """Of a whole run, over all samples.

    Attributes:
        soma_pj, synapse_pj: (cores,) energy of each core's units.
        latency_us: (hardware steps,) simulated time of each.
        sent: by population; those that sent nothing are missing.
    """

    soma_pj: np.ndarray
    synapse_pj: np.ndarray
    latency_us: np.ndarray
    sent: dict[str, Sent]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write plain arrays."""
        rows = {f"sent.{name}": np.stack(astuple(sent)) for name, sent in self.sent.items()}
        own = {what: getattr(self, what) for what in ("soma_pj", "synapse_pj", "latency_us")}
        np.savez(path, **own, **rows)  # type: ignore[arg-type]

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Detail:
        """Read what `save` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            sent = {
                key.removeprefix("sent."): Sent(*stored[key])
                for key in stored.files
                if key.startswith("sent.")
            }
            return Detail(stored["soma_pj"], stored["synapse_pj"], stored["latency_us"], sent)


class DetailLog:
    """Adds up what SANA-FE tells about single cores and messages."""

    def __init__(self, names: dict[str, str], cores: int) -> None:
        self.names = names
        self.soma_pj, self.synapse_pj = np.zeros(cores), np.zeros(cores)
        self.latency_us: list[float] = []
        self.messages: Counter[tuple[str, int, int]] = Counter()
        self.synapses: Counter[tuple[str, int, int]] = Counter()
        self.across: dict[tuple[str, int, int], tuple[int, int]] = {}

    def note(self, result: dict[str, Any]) -> None:
        """One hardware step."""
        self.latency_us.append(1e6 * result["sim_time"])
        told = result["perf_trace"]
        for core in range(len(self.soma_pj)):
            tile, offset = divmod(core, CORES_PER_ROUTER)
            unit = f"loihi_tile[{tile}].loihi_core[{offset}]"
            self.soma_pj[core] += 1e12 * sum(told[f"{unit}.loihi_lif.energy"])
            for synapse in SYNAPSES.values():
                self.synapse_pj[core] += 1e12 * sum(told[f"{unit}.{synapse}.energy"])
        for message in result["message_trace"][0]:
            if message["placeholder"]:  # a core's time after its last spike: nothing is sent
                continue
            sender = self.names[message["src_neuron_group_id"]]
            key = (sender, message["src_neuron_offset"], message["dest_core_id"])
            self.messages[key] += 1
            self.synapses[key] += message["spikes"]
            self.across[key] = (
                abs(message["src_x"] - message["dest_x"]),
                abs(message["src_y"] - message["dest_y"]),
            )

    def detail(self) -> Detail:
        """What was told of the whole run."""
        sent = {}
        for name in dict.fromkeys(key[0] for key in self.messages):
            keys = [key for key in self.messages if key[0] == name]
            rows = [
                (neuron, core, self.messages[key], self.synapses[key], *self.across[key])
                for key in keys
                for _, neuron, core in [key]
            ]
            sent[name] = Sent(*np.array(rows, dtype=np.int64).T)
        return Detail(self.soma_pj, self.synapse_pj, np.array(self.latency_us), sent)
