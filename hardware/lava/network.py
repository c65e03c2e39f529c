"""A legalised `SpikeGraph` as Lava's stock processes: one per LIF population and one per synapse.

`Input` is a source RingBuffer; a `Relay` has no process, because a stock synapse sends what it
accumulated one step before: the synapses into the relay feed the synapses out of it directly, and sums
travel as graded messages. A recorded population, relay or readout is connected to the recorder.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy.sparse import csr_matrix

from hardware.errors import BackendError
from hardware.ir.arithmetic import ACTIVATION_SHIFT, DECAY_UNITY
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import LIF, Input, is_graded, size
from hardware.ir.stream import input_stream, stream_steps
from hardware.ir.synapses import AnySynapse, Conv2d, Dense
from hardware.lava.compat import lava_imports
from hardware.lava.recorder import Recorder
from hardware.lava.tracks import Track

with lava_imports():
    from lava.magma.core.process.process import AbstractProcess
    from lava.proc.conv.process import Conv as LavaConv
    from lava.proc.dense.process import Dense as LavaDense
    from lava.proc.io.source import RingBuffer as Source
    from lava.proc.lif.process import LIF as LavaLIF
    from lava.proc.lif.process import LIFReset
    from lava.proc.sparse.process import Sparse as LavaSparse
    from lava.utils.weightutils import SignMode

ConvAs = Literal["auto", "sparse", "conv"]
MAX_SPARSE_ENTRIES = (
    2_000_000  # above, a convolution's matrix costs more than stock Conv's slowness
)
MESSAGE_BITS = 24  # of graded messages; 0 means binary spikes
INT8_MAX = 127  # stock Conv keeps stride, padding, dilation and groups in int8


@dataclass(frozen=True, kw_only=True)
class Network:
    """The processes of one run; `recorder` reaches all of those that are needed."""

    processes: list[AbstractProcess]
    recorder: Recorder
    steps: int
    connections: int
    message_bytes: int


def build_network(
    graph: SpikeGraph,
    inputs: np.ndarray,
    *,
    tracks: dict[str, Track],
    progress_path: str,
    conv_as: ConvAs = "auto",
) -> Network:
    """Create and connect the processes for samples that stream back to back.

    Args:
        graph: with every delay equal to 1 (the pass register_delays).
        inputs: (S, T or 1, *shape), checked by `check_inputs`.
        tracks: what to record and into which files, by population (no inputs).

    Raises:
        BackendError: for a delay above 1, or a convolution that no stock process can compute.
    """
    return _Builder(graph, conv_as).build(inputs, tracks, progress_path)


class _Builder:
    def __init__(self, graph: SpikeGraph, conv_as: ConvAs) -> None:
        self.graph = graph
        self.fixed = graph.arithmetic == "fixed"
        self.conv_as = conv_as
        self.connections = 0
        self.message_bytes = 0

    def build(self, inputs: np.ndarray, tracks: dict[str, Track], progress_path: str) -> Network:
        graph, steps = self.graph, stream_steps(self.graph, len(inputs))
        neurons: dict[str, Any] = {}
        for name, population in graph.populations.items():
            if isinstance(population, Input):
                stream = input_stream(graph, population, inputs).reshape(steps, -1).T
                dtype = np.int32 if self.fixed else np.float64
                neurons[name] = Source(data=np.ascontiguousarray(stream, dtype=dtype))
            elif isinstance(population, LIF):
                neurons[name] = self.lif(population)
        synapses = [self.synapse(s) for s in graph.synapses]
        for synapse, process in zip(graph.synapses, synapses, strict=True):
            if synapse.source in neurons:
                self.connect(neurons[synapse.source].s_out, process.s_in)
            if synapse.target in neurons:
                self.connect(process.a_out, neurons[synapse.target].a_in)
        self.connect_relays(neurons, synapses)
        recorder = Recorder(tracks=list(tracks.values()), steps=steps, progress_path=progress_path)
        for index, name in enumerate(tracks):
            for port in self.senders(name, neurons, synapses):
                self.connect(port, recorder.port(index))
        return Network(
            processes=[*neurons.values(), *synapses, recorder],
            recorder=recorder,
            steps=steps,
            connections=self.connections,
            message_bytes=self.message_bytes,
        )

    def connect(self, out_port, in_port) -> None:
        if out_port.shape != in_port.shape:
            out_port = out_port.reshape(in_port.shape)
        out_port.connect(in_port)
        self.connections += 1
        self.message_bytes += 8 * int(np.prod(in_port.shape))

    def connect_relays(self, neurons, synapses) -> None:
        pairs = list(zip(self.graph.synapses, synapses, strict=True))
        for before, process in pairs:
            if before.target not in neurons:
                for after, reader in pairs:
                    if after.source == before.target:
                        self.connect(process.a_out, reader.s_in)

    def senders(self, name: str, neurons, synapses) -> Iterable:
        if name in neurons:
            return [neurons[name].s_out]
        pairs = zip(self.graph.synapses, synapses, strict=True)
        return [process.a_out for synapse, process in pairs if synapse.target == name]

    def lif(self, population: LIF) -> LavaLIF:
        shape = (size(population),)

        def flat(values: np.ndarray, dtype: type) -> np.ndarray:
            return np.broadcast_to(values, population.shape).reshape(shape).astype(dtype)

        leak = 1.0 - population.membrane_decay
        if self.fixed:
            rule = {
                "du": DECAY_UNITY - 1,
                "dv": round(DECAY_UNITY * leak),
                "bias_mant": flat(population.bias, np.int16),
                "bias_exp": ACTIVATION_SHIFT,
                "vth": flat(population.threshold, np.int32),
            }
        else:
            rule = {
                "du": 1.0,
                "dv": leak,
                "bias_mant": flat(population.bias, np.float64),
                "vth": flat(population.threshold, np.float64),
            }
        if population.membrane_decay == 0.0:  # no memory, so no reset
            return LavaLIF(shape=shape, name=population.name, **rule)
        return LIFReset(
            shape=shape,
            name=population.name,
            reset_interval=self.graph.time_steps,
            reset_offset=self.graph.depth[population.name] + 1,
            **rule,
        )

    def synapse(self, synapse: AnySynapse) -> LavaDense | LavaSparse | LavaConv:
        source = self.graph.populations[synapse.source]
        constant = isinstance(source, Input) and source.kind == "constant"
        if synapse.delay != 1 and not constant:
            raise BackendError(
                f"synapse '{synapse.source}' -> '{synapse.target}' has delay {synapse.delay}; "
                f"Lava's stock synapses take one step: run the pass register_delays first"
            )
        name = f"{synapse.source} -> {synapse.target}"
        bits = MESSAGE_BITS if is_graded(source) else 0
        if isinstance(synapse, Conv2d) and self.uses_conv(synapse, name):
            return self.conv(synapse, name, bits)
        number = np.int32 if self.fixed else np.float64
        fixed = (
            {"weight_exp": synapse.exponent, "num_weight_bits": 8, "sign_mode": SignMode.MIXED}
            if self.fixed
            else {}
        )
        if isinstance(synapse, Dense):
            weights = synapse.weight.astype(number)
            return LavaDense(weights=weights, name=name, num_message_bits=bits, **fixed)
        matrix = csr_matrix(self.graph.matrix(synapse), dtype=number)
        return LavaSparse(weights=matrix, name=name, num_message_bits=bits, **fixed)

    def uses_conv(self, synapse: Conv2d, name: str) -> bool:
        """Stock Conv can neither floor a sum nor keep settings above 127, and is slow: Sparse if it fits."""
        exact = synapse.exponent >= 0 or not (synapse.weight % 2**-synapse.exponent).any()
        settings = (*synapse.stride, *synapse.padding, *synapse.dilation, synapse.groups)
        possible = exact and max(settings) <= INT8_MAX
        height, width, _ = self.graph.populations[synapse.target].shape
        entries = synapse.weight.size * height * width
        if self.conv_as == "sparse" or (self.conv_as == "auto" and entries <= MAX_SPARSE_ENTRIES):
            return False
        if not possible and self.conv_as == "conv":
            raise BackendError(
                f"synapse '{name}' cannot be a stock Conv: exponent {synapse.exponent} floors sums, "
                f"or one of stride, padding, dilation, groups {settings} exceeds {INT8_MAX}; "
                f"use conv_as='sparse'"
            )
        return possible

    def conv(self, synapse: Conv2d, name: str, bits: int) -> LavaConv:
        weight = synapse.weight
        if self.fixed:
            up, down = max(synapse.exponent, 0), max(-synapse.exponent, 0)
            weight = (weight.astype(np.int32) << up) >> down
        # Lava convolves (flipped kernels), the graph correlates; Lava's order is (out, y, x, in).
        weight = np.ascontiguousarray(weight[:, :, ::-1, ::-1].transpose(0, 2, 3, 1))
        height, width, channels = self.graph.populations[synapse.source].shape
        return LavaConv(
            weight=weight,
            input_shape=(height, width, channels),
            stride=synapse.stride,
            padding=synapse.padding,
            dilation=synapse.dilation,
            groups=synapse.groups,
            num_message_bits=bits,
            name=name,
        )
