"""Run a worker and watch it, so that no caller ever hangs and nothing is left behind.

A run ends in one of three ways: the worker reports that it is done; something goes wrong (a process of
the run dies or is stopped, nothing moves, the time is over), which raises BackendError; or the caller
is interrupted (Ctrl-C, SIGTERM). In all of them every process of the run is killed but
Python's resource tracker, which then unlinks the shared memory and ends by itself. When the caller is
killed outright, the kernel kills the worker and its processes (`hardware.jobs.processes.die_with_parent`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from hardware.errors import BackendError
from hardware.jobs.folder import JobFolder
from hardware.jobs.interpreter import fresh_environment, matrix_kernels
from hardware.jobs.processes import SHARED_MEMORY, Member, session_members, shared_memory_of

POLL_S = 0.02  # looking for the result
SCAN_S = 0.5  # looking at the processes
GONE_S = 5.0  # for killed processes and the tracker to disappear


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long a run may take, in seconds.

    `total`: the whole run (None: no limit); `idle`: without a step and without computing;
    `step`: one hardware step; `stopped`: a process that someone stopped; `stop`: Lava's own shutdown.
    """

    total: float | None = None
    idle: float = 30.0
    step: float = 600.0
    stopped: float = 2.0
    stop: float = 10.0


def supervise(
    job: JobFolder, *, limits: Limits, progress: Callable[[int], None] | None = None
) -> dict:
    """Run the worker on a prepared job and return its final status.

    Args:
        progress: called with the number of finished hardware steps when it changes.

    Raises:
        BackendError: saying what died, stopped or took too long.
    """
    with open(job.log, "wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "hardware.lava.worker", str(job.path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=matrix_kernels() | fresh_environment() | {"PYTHONWARNINGS": "ignore"},
        )
        watch = _Watch(job, worker, limits, progress)
        try:
            return watch.until_done()
        finally:
            end_run(worker, known_memory=watch.memory)


def end_run(worker: subprocess.Popen, *, known_memory: set[str]) -> None:
    """Kill every process of the worker's session, wait for the tracker, unlink what it left."""
    memory, deadline = set(known_memory), time.monotonic() + GONE_S
    while True:
        alive = [m for m in session_members(worker.pid) if m.is_alive]
        others = [m for m in alive if not m.is_tracker]
        for member in others:
            if member.pid == worker.pid:
                memory |= shared_memory_of(member.pid)
        if not alive:
            break
        late = time.monotonic() > deadline
        for member in alive:
            with suppress(ProcessLookupError):  # SIGCONT: the tracker may have been stopped
                os.kill(member.pid, signal.SIGKILL if late or member in others else signal.SIGCONT)
        if time.monotonic() > deadline + GONE_S:
            break  # nothing more can be done against a process that the kernel does not let go
        time.sleep(POLL_S)
    for name in memory:
        (SHARED_MEMORY / name).unlink(missing_ok=True)
    worker.wait()


class _Watch:
    def __init__(
        self,
        job: JobFolder,
        worker: subprocess.Popen,
        limits: Limits,
        progress: Callable[[int], None] | None,
    ) -> None:
        self.job, self.worker, self.limits, self.progress = job, worker, limits, progress
        self.memory: set[str] = set()
        self.started = self.moved = self.stepped = time.monotonic()
        self.cpu_ticks = 0
        self.steps = -1
        self.phase = ""
        self.stopped_since: dict[int, float] = {}

    def until_done(self) -> dict:
        scanned = 0.0
        while True:
            status = self.job.read("status.json")
            if status.get("phase") == "done":
                self._note_steps(status["steps"])
                with suppress(subprocess.TimeoutExpired):
                    self.worker.wait(self.limits.stop)
                return status
            if status.get("phase") == "failed":
                raise BackendError(f"the Lava run failed: {status['error']}")
            if fault := self.job.read("fault.json"):
                raise BackendError(f"the Lava run failed: {fault['error']}")
            now = time.monotonic()
            if self.worker.poll() is not None or now - scanned >= SCAN_S:
                scanned = now
                self._note_progress(status, now)
                problem = self._problem(status, now)
                # The run may have ended while we looked: then its processes end rightly.
                if problem and self.job.read("status.json").get("phase") not in ("done", "failed"):
                    raise BackendError(problem)
            time.sleep(POLL_S)

    def _note_progress(self, status: dict, now: float) -> None:
        phase, steps = status.get("phase", ""), self.job.steps_done()
        if phase != self.phase or steps != self.steps:
            self.phase, self.moved, self.stepped = phase, now, now
        self._note_steps(steps)

    def _note_steps(self, steps: int) -> None:
        if steps != self.steps:
            self.steps = steps
            if self.progress:
                self.progress(steps)

    def _problem(self, status: dict, now: float) -> str | None:
        members = session_members(self.worker.pid)
        if self.worker.poll() is not None:
            code = self.worker.returncode
            cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            return f"the Lava worker died ({cause}){self._hint()}"
        if status.get("phase") in ("building", "running"):
            self.memory |= shared_memory_of(self.worker.pid)
            for member in members:
                if not member.is_alive and member.pid != self.worker.pid:
                    return f"{self._name(member, status)} died ({member.cause}){self._hint()}"
        there = {member.pid for member in members}
        for pid, name in status.get("actors", {}).items():
            if int(pid) not in there:
                return f"Lava process '{name}' died, and somebody collected it{self._hint()}"
        return self._stopped(members, status, now) or self._overdue(members, status, now)

    def _stopped(self, members: list[Member], status: dict, now: float) -> str | None:
        halted = {m.pid: m for m in members if m.state == "T"}
        self.stopped_since = {pid: self.stopped_since.get(pid, now) for pid in halted}
        for pid, since in self.stopped_since.items():
            if now - since > self.limits.stopped:
                return (
                    f"{self._name(halted[pid], status)} was stopped by a signal and does not go on"
                )
        return None

    def _overdue(self, members: list[Member], status: dict, now: float) -> str | None:
        ticks = sum(member.cpu_ticks for member in members)
        if ticks != self.cpu_ticks:
            self.cpu_ticks, self.moved = ticks, now
        where = f"at step {max(self.steps, 0)} ({self.phase or 'starting'})"
        if self.limits.total is not None and now - self.started > self.limits.total:
            return f"the Lava run exceeded its time limit of {self.limits.total:g} s {where}"
        if now - self.moved > self.limits.idle:
            return f"the Lava run stands still for {self.limits.idle:g} s {where}{self._hint()}"
        at_once = status.get("at_once", 1)  # steps that are finished together
        if self.phase == "running" and now - self.stepped > self.limits.step * at_once:
            return f"the Lava run needs more than {self.limits.step:g} s for a step {where}"
        return None

    def _name(self, member: Member, status: dict) -> str:
        if member.pid == self.worker.pid:
            return "the Lava worker"
        name = status.get("actors", {}).get(str(member.pid))
        return f"Lava process '{name}'" if name else f"process {member.pid} of the Lava run"

    def _hint(self) -> str:
        line = self.job.last_log_line()
        return f"; last output: {line}" if line else ""
