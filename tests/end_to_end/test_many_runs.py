"""Lava runs in a row, a tenth of them raising, and several at once: what the caller holds stays the same."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from end_to_end.test_supervisor import BACKENDS, KINDS, alive, chain, remaining, samples, workers_of

from hardware.errors import BackendError
from hardware.ir import run_reference
from hardware.jobs.processes import shared_memory_of
from hardware.lava.run import run_lava

pytestmark = pytest.mark.lava
TRIALS = int(os.environ.get("SPIKINGMOE_TRIALS", "0"))
RUNS = 10 * TRIALS or 4
AT_ONCE = 3
RAISING = 0.02  # seconds of a time limit that no run keeps


class Watch(threading.Thread):
    """Notes the sessions of this process's Lava runs and the shared memory that they map."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.sessions: set[int] = set()
        self.memory: set[str] = set()
        self.stopped = threading.Event()
        self.looking = threading.Lock()

    def run(self) -> None:
        while not self.stopped.wait(0.05):
            with self.looking:
                for session in workers_of(os.getpid()):
                    self.sessions.add(session)
                    self.memory |= shared_memory_of(session)

    def held(self) -> tuple[int, int]:
        """(open files, threads) of this process while nobody looks into /proc."""
        with self.looking:
            return held()

    def __enter__(self) -> Watch:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopped.set()
        self.join()


def held() -> tuple[int, int]:
    """(open files, threads) of this process."""
    return len(os.listdir("/proc/self/fd")), threading.active_count()


def await_end(watch: Watch) -> None:
    """Nothing of the runs is left, at the latest after some seconds on a busy machine."""
    deadline = time.monotonic() + 10
    while any(alive(s) for s in watch.sessions) or remaining(watch.memory):
        assert time.monotonic() < deadline, (watch.sessions, remaining(watch.memory))
        time.sleep(0.05)


@pytest.mark.timeout(0)
@BACKENDS
def test_runs_in_a_row_leave_nothing(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    graph, inputs = chain(), samples(8)
    expected = run_reference(graph, inputs)
    settings = KINDS[kind]
    run_lava(graph, inputs, settings=settings)  # what the first run opens for good
    before, raised = held(), 0
    with Watch() as watch:
        between = watch.held()
        for number in range(RUNS):
            if number % 10 == 1:
                with pytest.raises(BackendError, match="exceeded its time limit"):
                    run_lava(graph, samples(20_000), time_limit=RAISING, settings=settings)
                raised += 1
            else:
                trace = run_lava(graph, inputs, settings=settings)
                assert np.array_equal(trace.spikes["b"], expected.spikes["b"])
            assert watch.held() == between, f"after run {number}"
        assert watch.memory
        await_end(watch)
    assert raised >= 1
    assert held() == before
    assert list(tmp_path.iterdir()) == []


def test_runs_at_once_give_what_each_gives_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    graph = chain()
    inputs = [samples(6 + number) for number in range(AT_ONCE)]
    with Watch() as watch, ThreadPoolExecutor(AT_ONCE) as pool:
        traces = list(pool.map(lambda some: run_lava(graph, some), inputs))
        await_end(watch)
    assert len(watch.sessions) == AT_ONCE
    for some, trace in zip(inputs, traces, strict=True):
        expected = run_reference(graph, some)
        for name in ("a", "b", "out"):
            assert np.array_equal(trace.spikes[name], expected.spikes[name])
    assert list(tmp_path.iterdir()) == []
