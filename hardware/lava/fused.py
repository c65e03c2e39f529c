"""A segment of a graph as one hierarchical Lava process, and the CPU model that computes all of it.

The process has an input port for each population of other segments that it hears and an output port for
each of its own that others hear. Two models implement it, and the run configuration says which one runs:
`segment_model` here, which computes whole hardware steps with `hardware.ir.stepper`, and the stock
network of `hardware.lava.subnetwork`. Both write what is recorded of the segment into the files by
themselves, so that recording takes no messages, and note the finished steps in their own place.

Messages hold `at_once` consecutive hardware steps. That changes no spike: segments form no cycle, and a
step of a later segment waits for the same step of the earlier ones in any case. Larger matrix products
and fewer messages make it faster. The stock network takes one step at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from hardware.errors import BackendError
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import LIF, Input, size
from hardware.ir.stepper import Stepper
from hardware.ir.stream import InputRows
from hardware.jobs.folder import JobFolder
from hardware.lava.compat import lava_imports
from hardware.lava.segments import Segment
from hardware.lava.settings import ConvAs
from hardware.lava.tracks import Track
from hardware.passes.pipeline import legalise_for_stock_lava

with lava_imports():
    from lava.magma.core.decorator import implements, requires
    from lava.magma.core.model.py.model import PyLoihiProcessModel
    from lava.magma.core.model.py.ports import PyInPort, PyOutPort
    from lava.magma.core.model.py.type import LavaPyType
    from lava.magma.core.process.ports.ports import InPort, OutPort
    from lava.magma.core.process.process import AbstractProcess
    from lava.magma.core.resources import CPU
    from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol


@dataclass(frozen=True, kw_only=True)
class Task:
    """What all segments of a run share.

    Attributes:
        graph: the whole graph, prepared.
        inputs: (S, T or 1, *shape) of the samples.
        steps: hardware steps of the run.
        at_once: hardware steps per message.
        conv_as: of stock networks.
        tracks: what is recorded, by population.
        folder: of the job.
    """

    graph: SpikeGraph
    inputs: np.ndarray
    steps: int
    at_once: int
    conv_as: ConvAs
    tracks: dict[str, Track]
    folder: str

    @cached_property
    def legal(self) -> SpikeGraph:
        """The whole graph as stock processes run it."""
        return legalise_for_stock_lava(self.graph)


class FusedSegment(AbstractProcess):
    """Ports `in{i}` take what `segment.sources[i]` send, ports `out{i}` give what `segment.sends[i]` send.

    Args:
        index: place of the segment among all, and of its number of finished steps.
    """

    def __init__(self, *, task: Task, segment: Segment, index: int) -> None:
        super().__init__(task=task, segment=segment, index=index, name=segment.title)
        for place, name in enumerate(segment.sources):
            setattr(self, f"in{place}", InPort(shape=message_shape(task, name)))
        for place, name in enumerate(segment.sends):
            setattr(self, f"out{place}", OutPort(shape=message_shape(task, name)))

    @property
    def task(self) -> Task:
        """What all segments share."""
        return self.proc_params["task"]

    @property
    def segment(self) -> Segment:
        """What it computes."""
        return self.proc_params["segment"]

    @property
    def index(self) -> int:
        """Its place among the segments."""
        return self.proc_params["index"]

    def input_port(self, name: str) -> InPort:
        """The port that takes the messages of a source."""
        return getattr(self, f"in{self.segment.sources.index(name)}")

    def output_port(self, name: str) -> OutPort:
        """The port that gives the messages of one of its populations."""
        return getattr(self, f"out{self.segment.sends.index(name)}")


def message_shape(task: Task, name: str) -> tuple[int, ...]:
    """Of a population's port: one step is a plain vector, as stock processes take it."""
    n = size(task.graph.populations[name])
    return (n,) if task.at_once == 1 else (task.at_once, n)


class _SegmentModel(PyLoihiProcessModel):
    """Each Lava step does the next `at_once` hardware steps."""

    def __init__(self, proc_params: Any) -> None:
        super().__init__(proc_params)
        self._worker: _SegmentWorker | None = None

    def run_spk(self) -> None:
        params: Any = self.proc_params
        if (
            self._worker is None
        ):  # made here, so that all segments make their operators side by side
            self._worker = _SegmentWorker(params["task"], params["segment"], params["index"])
        segment: Segment = params["segment"]
        received = {
            name: getattr(self, f"in{place}").recv() for place, name in enumerate(segment.sources)
        }
        sent = self._worker.step(received)
        for place, name in enumerate(segment.sends):
            port = getattr(self, f"out{place}")
            port.send(sent[name])


class _SegmentWorker:
    """Steps, messages and recorded rows of one segment, without Lava."""

    def __init__(self, task: Task, segment: Segment, index: int) -> None:
        self.task, self.segment, self.index = task, segment, index
        self.job = JobFolder(task.folder)
        graph = task.graph
        self.stepper = Stepper(graph, segment.names, at_most=task.at_once)
        self.inputs = {
            name: InputRows(graph, population, task.inputs)
            for name in segment.inputs
            if isinstance(population := graph.populations[name], Input)
        }
        self.rows = {
            name: np.load(task.tracks[name].path, mmap_mode="r+")
            for name in segment.names
            if name in task.tracks
        }
        self.messages = {
            name: np.zeros(message_shape(task, name), message_dtype(graph, name))
            for name in segment.sends
        }
        self.progress = np.load(self.job.progress, mmap_mode="r+")

    def step(self, received: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Take the messages of the sources and give those of the segment."""
        first = self.stepper.step
        count = min(self.task.at_once, self.task.steps - first)
        heard = {n: rows.reshape(self.task.at_once, -1)[:count] for n, rows in received.items()}
        try:
            heard |= {name: source.rows(first, count) for name, source in self.inputs.items()}
            self.stepper.advance(count, heard)
        except BackendError as error:
            self.job.write("fault.json", {"error": str(error)})
            raise
        for name, rows in self.rows.items():
            rows[first : first + count] = self.task.tracks[name].to_rows(self._flat(name))
        self.progress[self.index] = first + count
        for name, message in self.messages.items():
            message.reshape(self.task.at_once, -1)[:count] = self._flat(name)
        return self.messages

    def _flat(self, name: str) -> np.ndarray:
        sent = self.stepper.sent(name)
        return sent.reshape(len(sent), -1)


def message_dtype(graph: SpikeGraph, name: str) -> type:
    """Of what travels between segments; stock processes take the same."""
    if isinstance(graph.populations[name], LIF):
        return np.bool_
    return np.int32 if graph.arithmetic == "fixed" else np.float64


def segment_model(process: FusedSegment) -> Any:
    """The CPU model of a segment (Lava wants ports as class attributes)."""
    graph, segment = process.task.graph, process.segment
    members: dict[str, Any] = {}
    for kind, names, port in (
        ("in", segment.sources, PyInPort.VEC_DENSE),
        ("out", segment.sends, PyOutPort.VEC_DENSE),
    ):
        for place, name in enumerate(names):
            members[f"{kind}{place}"] = LavaPyType(port, message_dtype(graph, name))
    model = type("SegmentModel", (_SegmentModel,), members)
    return implements(proc=FusedSegment, protocol=LoihiProtocol)(requires(CPU)(model))
