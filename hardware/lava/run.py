"""Run samples through a `SpikeGraph` on Lava."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import asdict

import numpy as np

from hardware.errors import BackendError
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import LIF, Input, Readout, size
from hardware.ir.reference import Progress, check_inputs, input_values, run_meta, to_logits
from hardware.ir.stream import stream_steps, window_view
from hardware.jobs.folder import JobFolder, job_folder
from hardware.jobs.processes import sigterm_raises
from hardware.lava.compat import require_lava
from hardware.lava.settings import BACKEND_NAMES, Settings
from hardware.lava.supervisor import Limits, supervise
from hardware.lava.system import require_linux
from hardware.lava.tracks import Track
from hardware.passes.pipeline import legalise_for_stock_lava
from hardware.trace import SpikeTrace

BOARD_IDLE_S = 1800.0  # a board may have to be waited for
UNUSED_BITS = 64 - 24


def run_lava(
    graph: SpikeGraph,
    inputs: np.ndarray,
    *,
    record: Iterable[str] | None = None,
    progress: Progress | None = None,
    time_limit: float | None = None,
    settings: Settings | None = None,
) -> SpikeTrace:
    """Simulate a balanced graph on Lava; arguments and result as `run_reference`.

    The trace's `meta` also tells `processes`, `hardware_steps`, `step_ms` (time of a hardware step in
    the mean of the run) and `step_cpu_ms` (processor time of a step, all processes together).

    Args:
        time_limit: seconds for the whole run; a run that stands still is ended in any case.
        settings: which processes run; fused segments by default.

    Raises:
        BackendError: Lava is missing, the inputs do not fit, or the run died; nothing is left behind.
    """
    settings = settings or Settings()
    require_linux()
    require_lava()
    inputs = check_inputs(graph, inputs)
    if not graph.is_balanced:
        raise BackendError("Lava needs balanced delays; run the pass balance_delays first")
    started = time.perf_counter()
    keep = list(graph.populations if record is None else dict.fromkeys(record))
    names = [n for n in keep if not isinstance(graph.populations[n], Input)]
    names = list(dict.fromkeys([*names, graph.readout.name]))
    run = legalise_for_stock_lava(graph) if settings.network in ("stock", "chip") else graph
    with sigterm_raises(), job_folder() as job:
        tracks = _write_job(job, run, inputs, names, settings)
        samples, depth, told = len(inputs), max(graph.depth.values()), -1

        def report(steps: int) -> None:
            nonlocal told
            done = min(max(steps - depth, 0) // graph.time_steps, samples)
            if progress and done != told:
                told = done
                progress(done, samples)

        status = supervise(job, limits=_limits(settings, time_limit), progress=report)
        received = {n: _read(graph, n, tracks[n], samples, settings) for n in names}
    for name in keep:
        population = graph.populations[name]
        if isinstance(population, Input):
            received[name] = input_values(graph, population, inputs)
    meta = run_meta(
        graph, BACKEND_NAMES[settings.network], samples, time.perf_counter() - started
    ) | {
        "processes": status["processes"],
        "hardware_steps": status["steps"],
        "step_ms": 1e3 * status["seconds"] / status["steps"],
        "step_cpu_ms": 1e3 * status["cpu_seconds"] / status["steps"],
    }
    logits = to_logits(graph, received[graph.readout.name])
    return SpikeTrace(spikes={name: received[name] for name in keep}, logits=logits, meta=meta)


def _limits(settings: Settings, total: float | None) -> Limits:
    on_chip = settings.network == "chip"
    return Limits(total=total, idle=BOARD_IDLE_S) if on_chip else Limits(total=total)


def _write_job(
    job: JobFolder, graph: SpikeGraph, inputs: np.ndarray, names: list[str], settings: Settings
) -> dict[str, Track]:
    graph.save(job.graph)
    np.save(job.inputs, inputs, allow_pickle=False)
    tracks = {
        name: Track(
            neurons=size(graph.populations[name]),
            binary=isinstance(graph.populations[name], LIF),
            path=job.track(index),
        )
        for index, name in enumerate(names)
    }
    for track in tracks.values():
        track.create(stream_steps(graph, len(inputs)))
    listed = {name: asdict(track) for name, track in tracks.items()}
    content = {"parent": os.getpid(), "tracks": listed, "settings": asdict(settings)}
    job.write("job.json", content)
    return tracks


def _read(
    graph: SpikeGraph, name: str, track: Track, samples: int, settings: Settings
) -> np.ndarray:
    population, rows = graph.populations[name], track.read()
    if graph.arithmetic == "fixed" and not track.binary:
        rows = rows.astype(np.int64)
    if settings.network == "chip" and not track.binary:
        # What comes off the chip are 24 bits without their sign extended, and a readout without its bias.
        rows = rows << UNUSED_BITS >> UNUSED_BITS
        if isinstance(population, Readout):
            rows = rows + np.broadcast_to(population.bias, population.shape).ravel()
    return window_view(graph, name, rows.reshape(-1, *population.shape), samples)
