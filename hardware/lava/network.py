"""A legalised `SpikeGraph` as Lava's stock processes: one per LIF population and one per synapse.

`Input` is a source RingBuffer; a `Relay` has no process, because a stock synapse sends what it
accumulated one step before: the synapses into the relay feed the synapses out of it directly, and sums
travel as graded messages. A recorded population, relay or readout is connected to the recorder.

The graph may be a part of a larger one (`hardware.lava.subnetwork`): what it hears from outside comes
through given ports then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from hardware.errors import BackendError
from hardware.ir.arithmetic import ACTIVATION_SHIFT, DECAY_UNITY
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import LIF, Input, Readout, is_graded, size
from hardware.ir.stream import input_stream, stream_steps
from hardware.ir.synapses import AnySynapse, Conv2d, Dense
from hardware.lava.compat import lava_imports
from hardware.lava.recorder import Recorder
from hardware.lava.settings import ConvAs
from hardware.lava.tracks import Track

with lava_imports():
    from lava.magma.core.process.ports.ports import InPort, OutPort
    from lava.magma.core.process.process import AbstractProcess
    from lava.proc.conv.process import Conv as LavaConv
    from lava.proc.dense.process import Dense as LavaDense
    from lava.proc.io.source import RingBuffer as Source
    from lava.proc.lif.process import LIF as LavaLIF
    from lava.proc.lif.process import LIFReset
    from lava.proc.sparse.process import Sparse as LavaSparse
    from lava.utils.weightutils import SignMode

MAX_SPARSE_ENTRIES = (
    2_000_000  # above, a convolution's matrix costs more than stock Conv's slowness
)
MESSAGE_BITS = 24  # of graded messages; 0 means binary spikes
INT8_MAX = 127  # stock Conv keeps stride, padding, dilation and groups in int8


@dataclass(frozen=True, kw_only=True)
class NetworkSize:
    """What a network needs of the system."""

    processes: int
    connections: int
    message_bytes: int


@dataclass(frozen=True, kw_only=True)
class Network:
    """The processes of one run.

    Attributes:
        root: reaches all processes by connections.
        runs: Lava steps of the run; each does one or more hardware steps.
        steps: hardware steps of the run.
        size: of what runs in the end, the stock processes within a segment included.
    """

    root: AbstractProcess
    runs: int
    steps: int
    size: NetworkSize


class StockBuilder:
    """Creates the stock processes of a graph, for samples that stream back to back, and connects them.

    Args:
        graph: the part to build, with every delay equal to 1 (the pass register_delays).
        whole: the legalised graph of the whole run, which has the depths and the input signals.
        inputs: (S, T or 1, *shape), checked by `check_inputs`.

    Raises:
        BackendError: for a delay above 1, or a convolution that no stock process can compute.
    """

    def __init__(
        self, graph: SpikeGraph, *, whole: SpikeGraph, inputs: np.ndarray, conv_as: ConvAs
    ) -> None:
        self.graph, self.whole, self.inputs, self.conv_as = graph, whole, inputs, conv_as
        self.fixed = graph.arithmetic == "fixed"
        self.steps = stream_steps(whole, len(inputs))
        self.processes: list[AbstractProcess] = []
        self.connections = self.message_bytes = 0
        self.senders: dict[str, list[OutPort | InPort]] = {name: [] for name in graph.populations}

    def build(self, outside: Mapping[str, InPort]) -> None:
        """Everything but recorders; `outside` has the ports through which messages come in."""
        neurons: dict[str, Any] = {}
        for name, population in self.graph.populations.items():
            if name in outside:
                self.senders[name].append(outside[name])
            elif isinstance(population, LIF):
                neurons[name] = self.lif(population)
            elif isinstance(population, Input) and self.graph.outgoing(name):
                neurons[name] = self.source(name)
        for name, process in neurons.items():
            self.senders[name].append(process.s_out)
        synapses: Sequence[Any] = [self.synapse(s) for s in self.graph.synapses]
        for synapse, process in zip(self.graph.synapses, synapses, strict=True):
            if synapse.target in neurons:
                self.connect(process.a_out, neurons[synapse.target].a_in)
            else:
                self.senders[synapse.target].append(process.a_out)
        for synapse, process in zip(self.graph.synapses, synapses, strict=True):
            for port in self.senders[synapse.source]:
                self.connect(port, process.s_in)
        self.processes += [*neurons.values(), *synapses]

    def record(self, tracks: dict[str, Track], *, progress_path: str, index: int) -> Recorder:
        """A recorder of populations; its finished steps are number `index` of the progress."""
        biases = {
            place: np.broadcast_to(population.bias, population.shape).ravel()
            for place, name in enumerate(tracks)
            if isinstance(population := self.graph.populations[name], Readout)
        }
        recorder = Recorder(
            tracks=list(tracks.values()), biases=biases, progress_path=progress_path, index=index
        )
        for place, name in enumerate(tracks):
            for port in self.senders[name]:
                self.connect(port, recorder.port(place))
        self.processes.append(recorder)
        return recorder

    @property
    def size(self) -> NetworkSize:
        """Of what was built so far."""
        return NetworkSize(
            processes=len(self.processes),
            connections=self.connections,
            message_bytes=self.message_bytes,
        )

    def connect(self, source: OutPort | InPort, target: OutPort | InPort) -> None:
        """Connect two ports of as many elements; an InPort here is one of the process around."""
        port: Any = source
        if port.shape != target.shape:
            port = port.reshape(target.shape)
        port.connect(target)
        self.connections += 1
        self.message_bytes += 8 * int(np.prod(target.shape))

    def source(self, name: str) -> Source:
        population = self.whole.populations[name]
        assert isinstance(population, Input)
        stream = input_stream(self.whole, population, self.inputs).reshape(self.steps, -1).T
        dtype = np.int32 if self.fixed else np.float64
        return Source(data=np.ascontiguousarray(stream, dtype=dtype))

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
            reset_offset=self.whole.depth[population.name] + 1,
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
