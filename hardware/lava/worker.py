"""`python -m hardware.lava.worker FOLDER`: run one job in a fresh interpreter without torch.

Lava forks one process per Lava process, which is unsafe once torch has started its threads; hence an
interpreter of its own. Every process of the run dies with the worker, and the worker with its parent.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
import traceback
from typing import Any

from hardware.errors import BackendError, HardwareError
from hardware.jobs.folder import JobFolder
from hardware.jobs.processes import cpu_seconds, die_with_parent, keep_dead_children
from hardware.lava.system import (
    descriptors_needed,
    raise_descriptor_limit,
    require_shared_memory,
    shared_memory_needed,
)


def main() -> None:
    """Run the job; the exit code is 1 after an error, which stands in the job's status."""
    job = JobFolder(sys.argv[1])
    content = job.read("job.json")
    die_with_parent(content["parent"])
    worker = os.getpid()
    os.register_at_fork(after_in_child=lambda: die_with_parent(worker))
    keep_dead_children()
    # The shared-memory manager's socket belongs into the job's folder, which is always removed; by a
    # relative path, since the names of sockets are limited to 107 bytes.
    os.chdir(job.path)
    current: Any = multiprocessing.current_process()
    current._config["tempdir"] = "."
    try:
        _run(job, content)
    except Exception as error:
        traceback.print_exc()
        text = (
            str(error) if isinstance(error, HardwareError) else f"{type(error).__name__}: {error}"
        )
        job.write("status.json", {"phase": "failed", "error": " ".join(text.split())})
        code = 1
    else:
        code = 0
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # exit handlers would wait for processes that may never answer


def _run(job: JobFolder, content: dict) -> None:
    job.write("status.json", {"phase": "starting"})
    import numpy as np

    from hardware.ir.graph import SpikeGraph
    from hardware.lava.settings import Settings
    from hardware.lava.tracks import Track

    if "torch" in sys.modules:
        raise BackendError(
            "the Lava worker has imported torch, whose threads do not survive Lava's forks"
        )
    settings = Settings(**content["settings"])
    if settings.network == "chip":
        from hardware.lava import chip_execute as execute
        from hardware.lava.chip_network import plan_network
    else:
        from hardware.lava import execute
        from hardware.lava.plan import plan_network
    graph = SpikeGraph.load(job.graph)
    inputs = np.load(job.inputs, mmap_mode="r", allow_pickle=False)
    tracks = {name: Track(**track) for name, track in content["tracks"].items()}
    network = plan_network(job, graph, inputs, tracks, settings)
    processes, connections = network.size.processes, network.size.connections
    raise_descriptor_limit(descriptors_needed(processes, connections), processes)
    require_shared_memory(shared_memory_needed(processes, connections, network.size.message_bytes))
    at_once = -(-network.steps // network.runs)
    status = {
        "phase": "building",
        "processes": processes,
        "steps": network.steps,
        "at_once": at_once,
    }
    job.write("status.json", status)
    execute.start(network, settings, fixed=graph.arithmetic == "fixed")
    status |= {"phase": "running", "actors": execute.actors(network)}
    job.write("status.json", status)
    started, before = time.perf_counter(), cpu_seconds(os.getpid())
    execute.run(network)
    took = {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": cpu_seconds(os.getpid()) - before,
    }
    job.write("status.json", status | {"phase": "done"} | took)
    network.root.stop()


if __name__ == "__main__":
    main()
