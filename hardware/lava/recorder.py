"""One Lava process that writes what many populations send, step by step, into files.

Lava's own sinks hand their data back one number per message; files cost nothing and can be read
while the run goes on. The number of finished steps stands in a small file of its own.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from hardware.lava.compat import lava_imports
from hardware.lava.tracks import Track

with lava_imports():
    from lava.magma.core.decorator import implements, requires
    from lava.magma.core.model.py.model import PyLoihiProcessModel
    from lava.magma.core.model.py.ports import PyInPort
    from lava.magma.core.model.py.type import LavaPyType
    from lava.magma.core.process.ports.ports import InPort
    from lava.magma.core.process.process import AbstractProcess
    from lava.magma.core.resources import CPU
    from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol


class Recorder(AbstractProcess):
    """Input port `a{i}` takes the messages of track i; binary ones are stored as packed bits.

    Args:
        biases: what is added to the messages of a track before they are written, by its place.
        index: which number of the file `progress_path` counts the finished steps.
    """

    def __init__(
        self,
        *,
        tracks: list[Track],
        biases: dict[int, np.ndarray],
        progress_path: str,
        index: int,
    ) -> None:
        super().__init__(
            tracks=tracks,
            biases=biases,
            progress_path=progress_path,
            index=index,
            name="recorder",
        )
        for index, track in enumerate(tracks):
            setattr(self, f"a{index}", InPort(shape=(track.neurons,)))

    def port(self, index: int) -> InPort:
        """The input port of a track."""
        return getattr(self, f"a{index}")


class _RecorderModel(PyLoihiProcessModel):
    """Writes one row per track and step."""

    def __init__(self, proc_params) -> None:
        super().__init__(proc_params)
        self._rows: list[np.memmap] = []

    def run_spk(self) -> None:
        params: Any = self.proc_params
        tracks: list[Track] = params["tracks"]
        if not self._rows:
            self._rows = [np.load(track.path, mmap_mode="r+") for track in tracks]
            self._progress = np.load(params["progress_path"], mmap_mode="r+")
        for index, (track, rows) in enumerate(zip(tracks, self._rows, strict=True)):
            values = getattr(self, f"a{index}").recv()
            if index in params["biases"]:
                values = values + params["biases"][index]
            rows[self.time_step - 1] = track.to_rows(values)
        self._progress[params["index"]] = self.time_step


def recorder_model(ports: int) -> Any:
    """The CPU model of a recorder with that many input ports (Lava wants them as class attributes)."""
    members = {f"a{index}": LavaPyType(PyInPort.VEC_DENSE, float) for index in range(ports)}
    model = type("RecorderModel", (_RecorderModel,), members)
    return implements(proc=Recorder, protocol=LoihiProtocol)(requires(CPU)(model))
