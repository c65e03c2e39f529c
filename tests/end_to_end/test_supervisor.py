"""Whatever dies, stops or is interrupted in a Lava run: a named error in time, and nothing left."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from hardware.errors import BackendError
from hardware.ir import LIF, Dense, Input, Readout, SpikeGraph, run_reference
from hardware.jobs.folder import job_folder
from hardware.jobs.processes import SHARED_MEMORY, Member, session_members, shared_memory_of
from hardware.lava.run import run_lava
from hardware.lava.settings import Settings

pytestmark = pytest.mark.lava
ROOT = Path(__file__).parents[2]
ERROR_WITHIN_S = 5.0
GONE_WITHIN_S = 3.0
TRIALS = int(os.environ.get("SPIKINGMOE_TRIALS", "0"))  # of each kind; few by default
#: One step per message: the fused processes talk to each other as much as they can.
KINDS = {
    "fused": Settings(segments=2, at_once=1),
    "stock": Settings(network="stock"),
}
LONG = {"fused": 200_000, "stock": 20_000}  # samples: minutes on Lava
BACKENDS = pytest.mark.parametrize("kind", list(KINDS))


def chain() -> SpikeGraph:
    """x -> a -> b -> out."""
    rng = np.random.default_rng(0)
    populations = [
        Input(name="x", shape=(6,), kind="binary"),
        LIF(name="a", shape=(5,), threshold=np.asarray(0.5)),
        LIF(name="b", shape=(4,), threshold=np.asarray(0.5)),
        Readout(name="out", shape=(2,)),
    ]
    synapses = tuple(
        Dense(source=s.name, target=t.name, weight=rng.integers(-4, 9, (*t.shape, *s.shape)) / 8)
        for s, t in pairwise(populations)
    )
    return SpikeGraph(populations={p.name: p for p in populations}, synapses=synapses, time_steps=2)


def samples(count: int) -> np.ndarray:
    return (np.random.default_rng(1).random((count, 2, 6)) < 0.5).astype(float)


def workers_of(pid: int) -> list[int]:
    """Process ids of the Lava workers that `pid` started."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == pid and b"hardware.lava.worker" in command:
            found.append(int(entry.name))
    return found


def remaining(names: set[str]) -> set[str]:
    """Those of the shared-memory files that still exist."""
    return {name for name in names if (SHARED_MEMORY / name).exists()}


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary directory of the test's own: other runs may be going on."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def await_run(parent: int) -> int:
    """The worker that `parent` started, as soon as it has forked two processes."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        for worker in workers_of(parent):
            if len(alive(worker)) >= 4:
                return worker
        time.sleep(0.005)
    raise AssertionError("the Lava run does not start")


def alive(session: int) -> list[Member]:
    return [member for member in session_members(session) if member.is_alive]


class Assassin(threading.Thread):
    """Sends a signal to one random process of this process's Lava run, some time after it began."""

    def __init__(self, number: int, seed: int) -> None:
        super().__init__(daemon=True)
        self.number, self.chance = number, random.Random(seed)
        self.struck = 0.0
        self.session = 0
        self.memory: set[str] = set()

    def run(self) -> None:
        self.session = await_run(os.getpid())
        time.sleep(self.chance.uniform(0.0, 1.0))  # while it is built, or while it runs
        self.memory = shared_memory_of(self.session)
        victim = self.chance.choice(alive(self.session))
        self.struck = time.monotonic()
        os.kill(victim.pid, self.number)


@pytest.mark.parametrize("trial", range(TRIALS or 2))
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=lambda n: n.name)
@BACKENDS
def test_a_killed_or_stopped_process_of_the_run(
    kind: str, number: signal.Signals, trial: int, temporary: Path
) -> None:
    assassin = Assassin(number, trial)
    assassin.start()
    wanted = r"died|failed" if number == signal.SIGKILL else r"was stopped"
    with pytest.raises(BackendError, match=wanted) as caught:
        run_lava(chain(), samples(LONG[kind]), record=["out"], settings=KINDS[kind])
    assert time.monotonic() - assassin.struck < ERROR_WITHIN_S
    assert re.search(
        r"Lava process '.+'|process \d+ of the Lava run|the Lava worker|Lava run failed",
        str(caught.value),
    )
    assert alive(assassin.session) == []
    assert assassin.memory
    assert remaining(assassin.memory) == set()
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "count"), [("stock", 2), ("stock", 4), ("stock", 6), ("fused", 2), ("fused", 3)]
)
def test_a_process_killed_while_others_are_being_started(
    kind: str, count: int, temporary: Path
) -> None:
    """multiprocessing collects the dead whenever it starts another process: nobody must miss one."""
    struck: list[float] = []

    def strike() -> None:
        while not (workers := workers_of(os.getpid())):
            time.sleep(0.001)
        while True:
            started = [m for m in alive(workers[0]) if m.pid != workers[0] and not m.is_tracker]
            if len(started) >= count:
                os.kill(started[-1].pid, signal.SIGKILL)
                struck.append(time.monotonic())
                return
            time.sleep(0.0005)

    threading.Thread(target=strike, daemon=True).start()
    with pytest.raises(BackendError, match=r"died \(killed by SIGKILL\)|the Lava run failed"):
        run_lava(chain(), samples(LONG[kind]), record=["out"], settings=KINDS[kind])
    assert time.monotonic() - struck[0] < ERROR_WITHIN_S
    assert list(temporary.iterdir()) == []


PARENT = """
import sys
sys.path[:0] = [{root!r}, {tests!r}]
from end_to_end.test_supervisor import KINDS, LONG, chain, samples
from hardware.lava.run import run_lava
graph, inputs = chain(), samples(LONG[{kind!r}])
print("started", flush=True)
run_lava(graph, inputs, record=["out"], settings=KINDS[{kind!r}])
"""


@pytest.mark.parametrize(
    ("number", "trial"),
    [(signal.SIGKILL, n) for n in range(TRIALS or 2)]
    + [(signal.SIGTERM, n) for n in range(TRIALS or 1)]
    + [(signal.SIGINT, n) for n in range(TRIALS or 1)],
    ids=lambda value: getattr(value, "name", str(value)),
)
@BACKENDS
def test_the_parent_of_a_run_is_ended(
    kind: str, number: signal.Signals, trial: int, temporary: Path
) -> None:
    code = PARENT.format(root=str(ROOT), tests=str(ROOT / "tests"), kind=kind)
    parent = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert parent.stdout is not None
    assert parent.stdout.readline() == "started\n"
    session = await_run(parent.pid)
    time.sleep(random.Random(trial).uniform(0.0, 1.0))
    memory = shared_memory_of(session)
    assert memory
    parent.send_signal(number)
    struck = time.monotonic()
    while parent.poll() is None or alive(session) or remaining(memory):
        assert time.monotonic() - struck < GONE_WITHIN_S, alive(session)
        time.sleep(0.01)
    # Python ends by the very signal after a KeyboardInterrupt that nobody caught.
    assert parent.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: -2}[number]
    if number == signal.SIGKILL:
        with job_folder():  # the next start removes what the dead parent left
            pass
    assert list(temporary.iterdir()) == []


@BACKENDS
def test_a_time_limit_ends_the_run(kind: str, temporary: Path) -> None:
    started = time.monotonic()
    with pytest.raises(
        BackendError,
        match=r"exceeded its time limit of 3 s at step \d+ \((starting|building|running)\)",
    ):
        run_lava(chain(), samples(LONG[kind]), time_limit=3, settings=KINDS[kind])
    assert time.monotonic() - started < 3 + ERROR_WITHIN_S
    assert list(temporary.iterdir()) == []


@BACKENDS
def test_runs_beside_each_other_do_not_disturb_each_other(kind: str) -> None:
    graph, inputs, long = chain(), samples(200), samples(LONG[kind])
    results: dict[str, object] = {}

    def run(name: str, inputs: np.ndarray) -> None:
        try:
            results[name] = run_lava(graph, inputs, settings=KINDS[kind])
        except BackendError as error:
            results[name] = error

    doomed = threading.Thread(target=run, args=("doomed", long))
    doomed.start()
    session = await_run(os.getpid())
    good = threading.Thread(target=run, args=("good", inputs))
    good.start()
    while len(workers_of(os.getpid())) < 2 or len(alive(session)) < 6:
        time.sleep(0.01)
    time.sleep(1.5)  # the other one is being built or runs
    os.kill(max(member.pid for member in alive(session)), signal.SIGKILL)
    doomed.join(20)
    good.join(60)
    assert isinstance(results["doomed"], BackendError)
    expected = run_reference(graph, inputs)
    assert np.array_equal(results["good"].spikes["b"], expected.spikes["b"])  # type: ignore[attr-defined]
    assert alive(session) == []


def overflowing() -> SpikeGraph:
    """600 spikes of weight 254 at once leave the range of Loihi's state."""
    zero = np.asarray(0)
    populations = [
        Input(name="x", shape=(600,), kind="binary"),
        LIF(name="n", shape=(1,), threshold=np.asarray(1), bias=zero),
        Readout(name="out", shape=(1,), bias=zero),
    ]
    synapses = (
        Dense(source="x", target="n", weight=np.full((1, 600), 254)),
        Dense(source="n", target="out", weight=np.full((1, 1), 2)),
    )
    return SpikeGraph(
        populations={p.name: p for p in populations},
        synapses=synapses,
        time_steps=2,
        arithmetic="fixed",
    )


@pytest.mark.parametrize("schedule", ["free", "stepwise"])
@pytest.mark.parametrize("trial", range(TRIALS or 1))
def test_a_model_that_raises(
    trial: int, schedule: Literal["free", "stepwise"], temporary: Path
) -> None:
    """A fused process finds a range that is left; the caller gets its very words, wherever it happens."""
    inputs = np.zeros((400, 2, 600))
    inputs[random.Random(trial).randrange(400)] = 1
    with pytest.raises(
        BackendError,
        match=r"Lava run failed: population 'n' accumulated 152,400, beyond \+-131,071",
    ):
        run_lava(overflowing(), inputs, settings=Settings(segments=2, schedule=schedule))
    assert workers_of(os.getpid()) == []
    assert list(temporary.iterdir()) == []


def test_too_few_descriptors_are_refused_by_name() -> None:
    code = PARENT.format(root=str(ROOT), tests=str(ROOT / "tests"), kind="stock").replace(
        "print(", "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))\nprint("
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=60
    )
    assert re.search(
        r"BackendError: .*7 Lava processes need about \d+ open files; the hard limit is 100: "
        r"run `ulimit -n \d+`",
        done.stderr,
    )
