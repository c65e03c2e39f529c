"""Killed, interrupted and resumed anywhere, a run ends with the same bits as one that nothing disturbed.

Every training runs in a child process: its generators are drawn from by nothing but training. A child
stops itself at a given step, so that every trial hits the step that it names.
"""

import csv
import itertools
import json
import os
import random
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from small_runs import differences

from spikingmoe.train.checkpoint import checkpoints, load_run

EPOCHS, STEPS = 2, 5
LAST = EPOCHS * STEPS
TESTS = Path(__file__).parents[1]
TRIALS = int(os.environ.get("SPIKINGMOE_TRIALS", 10))

#: argv: root, tests' folder, JSON of trainings; each prints its exit code and its seconds.
CHILD = """
import json, os, signal, sys, time, zlib
import torch
torch.set_num_threads(1)
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from small_runs import MODEL, SETTINGS, small_data
from spikingmoe.config import RunOptions
from spikingmoe.train import record
from spikingmoe.train.fit import train
from spikingmoe.train.module import TrainingModule

WRITING = "writing"  # in place of a signal: SIGKILL in the middle of a write
record.EVERY = 2  # steps per row of the log
if any(plan[-1] for plan in json.loads(sys.argv[3])):
    import matplotlib.figure, torch.utils.tensorboard  # once, not in each training
DATA = small_data()
MIXTURE = replace(MODEL, routing="noisy_top_k")
RECIPE = replace(SETTINGS, epochs=2, ema_decay=0.9, precision="bf16", flip=True, max_shift=2)


def training(name, signal_at, number, workers, minutes, logs):
    # as the command line does
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    out = Path(sys.argv[1]) / name
    out.mkdir(exist_ok=True)
    optimizer_step, training_step = TrainingModule.optimizer_step, TrainingModule.training_step
    done = 0

    def recorded_step(self, batch, batch_index):
        with open(out / "order", "a") as order:
            samples = zlib.crc32(batch.index.numpy().tobytes())
            print(self.current_epoch, batch_index, samples, file=order)
        return training_step(self, batch, batch_index)

    def counted_step(self, *args, **kwargs):
        nonlocal done
        optimizer_step(self, *args, **kwargs)
        done += 1
        if done == signal_at:
            os.kill(os.getpid(), number)

    def half_a_write(fd, content, write=os.write):
        nonlocal done
        done += 1
        if done == signal_at:
            write(fd, content[: len(content) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return write(fd, content)

    TrainingModule.training_step = recorded_step
    if number == WRITING:
        os.write = half_a_write
    else:
        TrainingModule.optimizer_step = counted_step
    options = RunOptions(workers=workers, save_minutes=minutes, device="cpu", logs=logs)
    train(MIXTURE, RECIPE, DATA, out, resume=True, options=options)


for plan in json.loads(sys.argv[3]):
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            training(*plan)
            code = 0
        except KeyboardInterrupt:
            code = 130
        except SystemExit as stop:
            code = stop.code
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print(code, time.monotonic() - started, flush=True)
"""
EVERY_STEP = 1e-9  # minutes
WHOLE = ("whole", 0, 0, 0, 0.0, True)


def run_plans(root, plans):
    """[(exit code, seconds)] of trainings that are run one after the other."""
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(root), str(TESTS), json.dumps(plans)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=60 * len(plans),
    )
    assert child.returncode == 0, child.stderr
    ends = [line.split() for line in child.stdout.splitlines()]
    assert len(ends) == len(plans), child.stderr
    return [(int(code), float(seconds)) for code, seconds in ends]


def order(folder):
    """{(epoch, step): checksum of its samples}; fails if a repeated step took others."""
    found = {}
    for line in (folder / "order").read_text().splitlines():
        *place, samples = line.split()
        assert found.setdefault(tuple(place), samples) == samples, place
    return found


def assert_as_undisturbed(folder, whole):
    assert differences(checkpoints(folder)[0], checkpoints(whole)[0]) == []
    assert order(folder) == order(whole)
    assert len(order(whole)) == LAST
    assert len(checkpoints(folder)) == 2
    left = [p.name for p in (folder / "checkpoints").iterdir() if p.suffix != ".safetensors"]
    assert left == []


def table(folder):
    """The CSV log but for the speeds."""
    rows = list(csv.DictReader((folder / "logs" / "metrics.csv").read_text().splitlines()))
    assert len(rows) == EPOCHS * (STEPS // 2 + 1)
    return [{n: v for n, v in row.items() if n != "images_per_second"} for row in rows]


def events(folder):
    """What TensorBoard shows, but for the speeds; nothing if it is not installed."""
    if find_spec("tensorboard") is None:
        return {}
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / "logs"))
    found.Reload()
    tags = set(found.Tags()["scalars"]) - {"images_per_second"}
    assert {"loss", "step/loss", "firing_rate/head_neuron"} <= tags
    return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in tags}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that nothing disturbed."""
    root = tmp_path_factory.mktemp("undisturbed")
    assert [code for code, _ in run_plans(root, [WHOLE])] == [0]
    return root / "whole"


def disturbances(n, seed):
    """[(step, workers, minutes)]: every end of an epoch and a mixture of all the rest."""
    rng = random.Random(seed)
    ends = [(STEPS * epoch, epoch % 2 * 2, EVERY_STEP) for epoch in (1, 2)]
    others = itertools.product((0, 2), (0.0, EVERY_STEP))
    return ends + [
        (rng.randint(1, LAST - 1), *other)
        for other in itertools.islice(itertools.cycle(others), n - 2)
    ]


def test_killed_at_any_step_and_resumed(whole, tmp_path):
    """SIGKILL right after an optimiser step: in the middle and at the end of an epoch."""
    cases = disturbances(TRIALS, seed=5)
    plans = []
    for number, (step, workers, minutes) in enumerate(cases):
        plans.append((f"run{number}", step, signal.SIGKILL, workers, minutes, False))
        plans.append((f"run{number}", 0, 0, 2 - workers, 0.0, False))
    codes = [code for code, _ in run_plans(tmp_path, plans)]
    assert codes == [-signal.SIGKILL, 0] * len(cases)
    for number in range(len(cases)):
        assert_as_undisturbed(tmp_path / f"run{number}", whole)


def test_killed_in_the_middle_of_writing(whole, tmp_path):
    """SIGKILL when half of a checkpoint is written, of each one of the run."""
    plans = []
    for write in range(1, LAST + 1):
        plans.append((f"run{write}", write, "writing", 0, EVERY_STEP, False))
        plans.append((f"run{write}", 0, 0, 0, 0.0, False))
    codes = [code for code, _ in run_plans(tmp_path, plans)]
    assert codes == [-signal.SIGKILL, 0] * LAST
    for write in range(1, LAST + 1):
        assert_as_undisturbed(tmp_path / f"run{write}", whole)


def test_killed_many_times(whole, tmp_path):
    """One run, killed again and again after one or two steps that it could keep."""
    rng, kills = random.Random(6), LAST - 1
    runs = max(1, TRIALS // 10)
    for number in range(runs):
        ones = rng.sample(range(kills), kills // 2)
        plans = [
            (f"run{number}", 2, signal.SIGKILL, 2 if kill in ones else 0, EVERY_STEP, True)
            for kill in range(kills)
        ]
        codes = [
            code for code, _ in run_plans(tmp_path, [*plans, (f"run{number}", 0, 0, 0, 0.0, True)])
        ]
        assert codes == [-signal.SIGKILL] * kills + [0]
        assert_as_undisturbed(tmp_path / f"run{number}", whole)
        assert table(tmp_path / f"run{number}") == table(whole), "no row is lost or repeated"
        assert events(tmp_path / f"run{number}") == events(whole)


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_keep_the_step_that_was_being_done(whole, tmp_path, number, expected):
    cases = disturbances(TRIALS, seed=7)
    plans = [
        (f"run{i}", step, number, workers, 0.0, False) for i, (step, workers, _) in enumerate(cases)
    ]
    for code, seconds in run_plans(tmp_path, plans):
        assert code == expected
        assert seconds < 10
    for i, (step, _, _) in enumerate(cases):
        run = load_run(tmp_path / f"run{i}")
        assert (run.epoch, run.steps) == divmod(step, STEPS), "no step is lost"
    resumed = [(f"run{i}", 0, 0, 0, 0.0, False) for i in range(len(cases))]
    assert [code for code, _ in run_plans(tmp_path, resumed)] == [0] * len(cases)
    for i in range(len(cases)):
        assert_as_undisturbed(tmp_path / f"run{i}", whole)
