"""Run samples through a `SpikeGraph` on Lava's stock processes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import asdict
from typing import Literal

import numpy as np

from hardware.errors import BackendError
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import LIF, Input, Readout, size
from hardware.ir.reference import Progress, check_inputs, input_values, run_meta, to_logits
from hardware.ir.stream import stream_steps, window_view
from hardware.lava.compat import require_lava
from hardware.lava.job import JobFolder, job_folder
from hardware.lava.supervisor import Limits, sigterm_raises, supervise
from hardware.lava.system import require_linux
from hardware.lava.tracks import Track
from hardware.passes.pipeline import legalise_for_stock_lava
from hardware.trace import SpikeTrace

Target = Literal["cpu", "loihi"]
BACKEND: dict[Target, str] = {"cpu": "lava-stock", "loihi": "loihi"}
BOARD_IDLE_S = 1800.0  # a board may have to be waited for
UNUSED_BITS = 64 - 24


def run_lava(
    graph: SpikeGraph,
    inputs: np.ndarray,
    *,
    record: Iterable[str] | None = None,
    progress: Progress | None = None,
    time_limit: float | None = None,
    conv_as: str = "auto",
    schedule: str = "free",
    target: Target = "cpu",
) -> SpikeTrace:
    """Simulate a balanced graph on Lava; arguments and result as `run_reference`.

    Args:
        time_limit: seconds for the whole run; a run that stands still is ended in any case.
        conv_as: "sparse" or "conv" forces one stock process for convolutions; "auto" chooses.
        schedule: "free" lets every process go on as soon as it has its inputs; "stepwise" keeps
            Lava's global step, with the same result and two to three times slower.
        target: "cpu", or "loihi" for a board (`hardware.lava.loihi.run_loihi` checks before).

    Raises:
        BackendError: Lava is missing, the inputs do not fit, or the run died; nothing is left behind.
    """
    require_linux()
    require_lava()
    inputs = check_inputs(graph, inputs)
    if not graph.is_balanced:
        raise BackendError("Lava needs balanced delays; run the pass balance_delays first")
    started = time.perf_counter()
    keep = list(graph.populations if record is None else dict.fromkeys(record))
    names = [n for n in keep if not isinstance(graph.populations[n], Input)]
    names = list(dict.fromkeys([*names, graph.readout.name]))
    legal = legalise_for_stock_lava(graph)
    with sigterm_raises(), job_folder() as job:
        tracks = _write_job(
            job, legal, inputs, names, conv_as=conv_as, schedule=schedule, target=target
        )
        samples, depth, told = len(inputs), max(legal.depth.values()), -1

        def report(steps: int) -> None:
            nonlocal told
            done = min(max(steps - depth, 0) // graph.time_steps, samples)
            if progress and done != told:
                told = done
                progress(done, samples)

        status = supervise(job, limits=_limits(target, time_limit), progress=report)
        received = {name: _read(legal, name, tracks[name], samples, target) for name in names}
    for name in keep:
        population = graph.populations[name]
        if isinstance(population, Input):
            received[name] = input_values(graph, population, inputs)
    meta = run_meta(graph, BACKEND[target], samples, time.perf_counter() - started) | {
        "processes": status["processes"],
        "hardware_steps": status["steps"],
        "step_ms": 1e3 * status["seconds"] / status["steps"],
    }
    logits = to_logits(graph, received[graph.readout.name])
    return SpikeTrace(spikes={name: received[name] for name in keep}, logits=logits, meta=meta)


def _limits(target: Target, total: float | None) -> Limits:
    return Limits(total=total) if target == "cpu" else Limits(total=total, idle=BOARD_IDLE_S)


def _write_job(
    job: JobFolder, legal: SpikeGraph, inputs: np.ndarray, names: list[str], **settings: str
) -> dict[str, Track]:
    legal.save(job.graph)
    np.save(job.inputs, inputs, allow_pickle=False)
    np.save(job.progress, np.zeros(1, np.int64), allow_pickle=False)
    tracks = {
        name: Track(
            neurons=size(legal.populations[name]),
            binary=isinstance(legal.populations[name], LIF),
            path=job.track(index),
        )
        for index, name in enumerate(names)
    }
    for track in tracks.values():
        track.create(stream_steps(legal, len(inputs)))
    listed = {name: asdict(track) for name, track in tracks.items()}
    job.write("job.json", {"parent": os.getpid(), "tracks": listed, **settings})
    return tracks


def _read(legal: SpikeGraph, name: str, track: Track, samples: int, target: Target) -> np.ndarray:
    population, rows = legal.populations[name], track.read()
    if legal.arithmetic == "fixed" and not track.binary:
        rows = rows.astype(np.int64)
        if target == "loihi":  # what comes off the chip are 24 bits without their sign extended
            rows = rows << UNUSED_BITS >> UNUSED_BITS
    values = window_view(legal, name, rows.reshape(-1, *population.shape), samples)
    return values + population.bias if isinstance(population, Readout) else values
