"""A legalised fixed-point `SpikeGraph` as the processes that Lava's compiler lays onto neuro cores.

Like the stock network of `hardware.lava.network`, but for what a chip wants otherwise:

- Whatever goes onto a core or comes off it passes an adapter (`lava.proc.embedded_io.spike`).
- Synapses cannot feed synapses there: a `Relay` and the `Readout` are `GradedVec` processes.
- The field of the decay ends at 4095, so a population without memory cannot forget by its decay (4096
  on the CPU). It is a `LIFReset` that is reset at every step instead, which is the same exactly.
- Convolutions are `Sparse`: Lava's Conv ignores the exponent, and eight bits hold no shifted weight.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from hardware.ir.arithmetic import ACTIVATION_SHIFT, DECAY_UNITY
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import LIF, Input, Population, is_graded, size
from hardware.ir.stream import input_stream, stream_steps
from hardware.ir.synapses import AnySynapse, Dense
from hardware.jobs.folder import JobFolder
from hardware.lava.compat import lava_imports
from hardware.lava.network import MESSAGE_BITS, Network, NetworkSize
from hardware.lava.recorder import Recorder
from hardware.lava.settings import Settings
from hardware.lava.tracks import Track

with lava_imports():
    from lava.proc.dense.process import Dense as LavaDense
    from lava.proc.embedded_io.spike import (  # type: ignore[reportMissingImports]  # Intel's
        NxToPyAdapter,
        PyToNxAdapter,
    )
    from lava.proc.graded.process import GradedVec
    from lava.proc.io.source import RingBuffer as Source
    from lava.proc.lif.process import LIFReset
    from lava.proc.sparse.process import Sparse as LavaSparse
    from lava.utils.weightutils import SignMode

LARGEST_DECAY = DECAY_UNITY - 1  # of the 12-bit fields du and dv


def plan_network(
    job: JobFolder,
    graph: SpikeGraph,
    inputs: np.ndarray,
    tracks: dict[str, Track],
    settings: Settings,
) -> Network:
    """Create and connect the processes; arguments and result as of the networks for the CPU.

    Args:
        graph: fixed point, every delay 1, checked by `hardware.lava.loihi.check_chip`.
    """
    assert graph.arithmetic == "fixed"
    assert settings.network == "chip"
    np.save(job.progress, np.zeros(1, np.int64), allow_pickle=False)
    return _Builder(graph).build(inputs, tracks, job.progress)


class _Builder:
    def __init__(self, graph: SpikeGraph) -> None:
        self.graph = graph
        self.processes: list[Any] = []
        self.connections = 0
        self.message_bytes = 0

    def build(self, inputs: np.ndarray, tracks: dict[str, Track], progress_path: str) -> Network:
        graph, steps = self.graph, stream_steps(self.graph, len(inputs))
        sends, receives = {}, {}  # ports on the chip, by population
        for name, population in graph.populations.items():
            if isinstance(population, Input):
                stream = input_stream(graph, population, inputs).reshape(steps, -1).T
                sends[name] = self.inject(population, np.ascontiguousarray(stream, np.int32))
            else:
                neurons = self.add(self.neurons(population), name)
                sends[name], receives[name] = neurons.s_out, neurons.a_in
        for synapse in graph.synapses:
            process = self.add(self.synapse(synapse), f"{synapse.source} -> {synapse.target}")
            self.connect(sends[synapse.source], process.s_in)
            self.connect(process.a_out, receives[synapse.target])
        recorder = Recorder(
            tracks=list(tracks.values()), biases={}, progress_path=progress_path, index=0
        )
        for index, name in enumerate(tracks):
            bits = 0 if tracks[name].binary else MESSAGE_BITS
            shape = (size(graph.populations[name]),)
            adapter = self.add(NxToPyAdapter(shape=shape, num_message_bits=bits), f"read {name}")
            self.connect(sends[name], adapter.inp)
            self.connect(adapter.out, recorder.port(index))
        size_of_all = NetworkSize(
            processes=len(self.processes) + 1,
            connections=self.connections,
            message_bytes=self.message_bytes,
        )
        return Network(root=recorder, runs=steps, steps=steps, size=size_of_all)

    def add(self, process: Any, name: str) -> Any:
        process.name = name
        self.processes.append(process)
        return process

    def connect(self, out_port: Any, in_port: Any) -> None:
        out_port.connect(in_port)
        self.connections += 1
        self.message_bytes += 8 * int(np.prod(in_port.shape))

    def inject(self, population: Input, stream: np.ndarray) -> Any:
        """The values (n, steps) of an input, from the host onto the chip; the port that sends them."""
        source = self.add(Source(data=stream), population.name)
        bits = MESSAGE_BITS if is_graded(population) else 0
        shape = (size(population),)
        adapter = PyToNxAdapter(shape=shape, num_message_bits=bits)
        self.add(adapter, f"inject {population.name}")
        self.connect(source.s_out, adapter.inp)
        return adapter.out

    def neurons(self, population: Population) -> Any:
        shape = (size(population),)
        if not isinstance(population, LIF):
            return GradedVec(shape=shape, vth=0)
        forgets = population.membrane_decay == 0.0
        bias = np.broadcast_to(population.bias, population.shape).reshape(shape)
        return LIFReset(
            shape=shape,
            du=LARGEST_DECAY,
            dv=LARGEST_DECAY if forgets else round(DECAY_UNITY * (1 - population.membrane_decay)),
            bias_mant=bias.astype(np.int16),
            bias_exp=ACTIVATION_SHIFT,
            vth=int(np.max(population.threshold)),
            reset_interval=1 if forgets else self.graph.time_steps,
            reset_offset=0 if forgets else self.graph.depth[population.name] + 1,
        )

    def synapse(self, synapse: AnySynapse) -> Any:
        bits = MESSAGE_BITS if is_graded(self.graph.populations[synapse.source]) else 0
        rule = {
            "num_message_bits": bits,
            "weight_exp": synapse.exponent,
            "num_weight_bits": 8,
            "sign_mode": SignMode.MIXED,
        }
        if isinstance(synapse, Dense):
            return LavaDense(weights=synapse.weight.astype(np.int32), **rule)
        return LavaSparse(weights=csr_matrix(self.graph.matrix(synapse), dtype=np.int32), **rule)
