"""`python -m hardware.sanafe.worker FOLDER`: one run of SANA-FE, in a process that may die of it.

An error inside SANA-FE's `sim` ends the interpreter; its memory grows with the number of synapses.
"""

from __future__ import annotations

import resource
import sys
import time
import traceback
from typing import Any

import numpy as np

from hardware.errors import BackendError, HardwareError
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import Input
from hardware.ir.stream import input_stream
from hardware.jobs.folder import JobFolder
from hardware.jobs.processes import die_with_parent
from hardware.sanafe.placement import Placement


def main() -> int:
    """Run the job; the exit code is 1 after an error, which stands in the job's status."""
    job = JobFolder(sys.argv[1])
    settings = job.read("job.json")
    if sys.platform == "linux":
        die_with_parent(settings["parent"])
    limit = settings["memory_bytes"]
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        job.write("status.json", _run(job, settings))
    except MemoryError:
        text = f"it needs more memory than its limit of {limit / 1e9:.1f} GB; use a smaller model"
        job.write("status.json", {"error": text})
        return 1
    except Exception as error:  # SANA-FE's own errors are of many classes
        traceback.print_exc()
        text = (
            str(error) if isinstance(error, HardwareError) else f"{type(error).__name__}: {error}"
        )
        job.write("status.json", {"error": " ".join(text.split())})
        return 1
    return 0


def _run(job: JobFolder, settings: dict[str, Any]) -> dict[str, Any]:
    from hardware.sanafe.chip import Chip

    if "torch" in sys.modules:
        raise BackendError(
            "the worker of SANA-FE has imported torch, whose memory it must not hold"
        )
    graph = SpikeGraph.load(job.graph)
    inputs = np.load(job.inputs, allow_pickle=False)
    with np.load(job.path / "cores.npz", allow_pickle=False) as stored:
        cores = {name: stored[str(index)] for index, name in enumerate(graph.populations)}
    streams = {}
    for name, population in graph.populations.items():
        if isinstance(population, Input):
            stream = input_stream(graph, population, inputs)
            streams[name] = stream.reshape(len(stream), -1)
    started = time.perf_counter()
    placement = Placement(cores, settings["kinds"])
    chip = Chip(graph, placement, streams, settings["record"], in_detail=settings["in_detail"])
    built = time.perf_counter()
    done = np.load(job.progress, mmap_mode="r+", allow_pickle=False)

    def note(steps: int) -> None:
        done[0] = steps

    recording = chip.run(note)
    for index, name in enumerate(recording.sent):
        np.save(job.track(index), recording.sent[name], allow_pickle=False)
    if recording.detail is not None:
        recording.detail.save(job.path / "detail.npz")
    return {
        "tracks": list(recording.sent),
        "energy_pj": recording.energy_pj,
        "latency_us": recording.latency_us,
        "hops": recording.hops,
        "messages": recording.messages,
        "build_seconds": built - started,
        "run_seconds": time.perf_counter() - built,
    }


if __name__ == "__main__":
    sys.exit(main())
