"""Run samples through a `SpikeGraph` on SANA-FE's Loihi 1."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hardware.errors import BackendError
from hardware.ir.fan_out import count_synapses
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import Input
from hardware.ir.reference import Progress, check_inputs, input_values, run_meta, to_logits
from hardware.ir.stream import stream_steps, window_view
from hardware.jobs.folder import JobFolder, job_folder
from hardware.jobs.interpreter import fresh_environment
from hardware.jobs.processes import sigterm_raises
from hardware.sanafe.detail import Detail
from hardware.sanafe.legal import legalise
from hardware.sanafe.placement import place_neurons
from hardware.trace import SpikeTrace

INSTALL = "pip install sanafe"
POLL_S = 0.02
BASE_BYTES, BYTES_PER_SYNAPSE = 4 << 30, 3000  # of address space: thrice what was measured


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Of one run: seconds (None: no limit), and bytes of address space (None: by the graph's size)."""

    seconds: float | None = None
    memory_bytes: int | None = None


def require_sanafe() -> None:
    """Raise BackendError unless the package can be found (it is not imported)."""
    if importlib.util.find_spec("sanafe") is None:
        raise BackendError(
            f"the backend 'sanafe' needs the package sanafe, which is not installed; run `{INSTALL}`"
        )


def run_sanafe(
    graph: SpikeGraph,
    inputs: np.ndarray,
    *,
    record: Iterable[str] | None = None,
    progress: Progress | None = None,
    limits: Limits | None = None,
    in_detail: bool = False,
) -> SpikeTrace:
    """Simulate a balanced graph in fixed point; arguments and result as `run_reference`.

    Args:
        in_detail: keep parts of the network on cores of their own, and give `detail`
            (`hardware.sanafe.detail.Detail`) in the trace's meta. Slower.

    Returns:
        A trace whose meta has, over all samples, `energy_pj` by part of the chip, `hops`, `messages`
        (a spike counts once per core that it reaches), `latency_us`, `cores`, `hardware_steps`, and
        `warnings`: limits of the real chip that SANA-FE does not check.

    Raises:
        BackendError: SANA-FE is missing, cannot run the graph, or died; the limits were exceeded.
        GraphError: a loop with a delay above 6.
    """
    legal = legalise(graph)
    require_sanafe()
    inputs = check_inputs(graph, inputs)
    limits = limits or Limits()
    started, samples = time.perf_counter(), len(inputs)
    keep = list(graph.populations if record is None else dict.fromkeys(record))
    placement = place_neurons(legal, parts_apart=in_detail)
    memory = limits.memory_bytes or BASE_BYTES + BYTES_PER_SYNAPSE * count_synapses(legal)
    depth, told = max(legal.depth.values()), -1

    def report(steps: int) -> None:
        nonlocal told
        done = min(max(steps - depth, 0) // graph.time_steps, samples)
        if progress and done != told:
            told = done
            progress(done, samples)

    with sigterm_raises(), job_folder() as job:
        legal.save(job.graph)
        np.save(job.inputs, inputs, allow_pickle=False)
        np.save(job.progress, np.zeros(1, np.int64), allow_pickle=False)
        numbered = {str(index): placement.cores[n] for index, n in enumerate(legal.populations)}
        np.savez(job.path / "cores.npz", **numbered)  # type: ignore[arg-type]
        names = [n for n in keep if not isinstance(graph.populations[n], Input)]
        settings = {"record": names, "kinds": placement.kinds, "memory_bytes": memory}
        settings |= {"in_detail": in_detail}
        job.write("job.json", settings | {"parent": os.getpid()})
        status = _watch(job, limits.seconds, report)
        detail = {"detail": Detail.load(job.path / "detail.npz")} if in_detail else {}
        received = {
            name: window_view(legal, name, _read(job, legal, index, name), samples)
            for index, name in enumerate(status["tracks"])
        }
    for name in keep:
        population = graph.populations[name]
        if isinstance(population, Input):
            received[name] = input_values(graph, population, inputs)
    meta = run_meta(graph, "sanafe", samples, time.perf_counter() - started) | {
        "cores": placement.cores_used,
        "hardware_steps": stream_steps(legal, samples),
        "warnings": list(placement.problems),
        **{key: value for key, value in status.items() if key != "tracks"},
        **detail,
    }
    logits = to_logits(graph, received[graph.readout.name])
    return SpikeTrace(spikes={name: received[name] for name in keep}, logits=logits, meta=meta)


def _read(job: JobFolder, legal: SpikeGraph, index: int, name: str) -> np.ndarray:
    rows = np.load(job.track(index), allow_pickle=False)
    return rows.reshape(-1, *legal.populations[name].shape)


def _watch(job: JobFolder, seconds: float | None, report: Callable[[int], None]) -> dict[str, Any]:
    """Run the worker to its end, or end it; its status."""
    started = time.monotonic()
    with open(job.log, "wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "hardware.sanafe.worker", str(job.path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=fresh_environment(),
        )
        try:
            while worker.poll() is None:
                report(job.steps_done())
                if seconds is not None and time.monotonic() - started > seconds:
                    raise BackendError(
                        f"the run of SANA-FE exceeded its time limit of {seconds:g} s at step "
                        f"{job.steps_done()}; give fewer samples or more time"
                    )
                time.sleep(POLL_S)
        finally:
            if worker.poll() is None:
                worker.kill()
            worker.wait()
    report(job.steps_done())
    status = job.read("status.json")
    if worker.returncode == 0 and "tracks" in status:
        return status
    if "error" in status:
        raise BackendError(f"the run of SANA-FE failed: {status['error']}")
    code = worker.returncode
    cause = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    raise BackendError(
        f"the run of SANA-FE died ({cause}) at step {job.steps_done()}; last output: "
        f"{job.last_log_line() or 'none'}"
    )
