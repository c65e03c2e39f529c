"""Two devices: two CPU processes that train one model."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace

import pytest
import torch
from device_runs import WatchedJob
from small_runs import MODEL, SETTINGS, small_data

from spikingmoe.config import RunOptions, TrainConfig
from spikingmoe.train.checkpoint import checkpoints, load_run, make_run_folder
from spikingmoe.train.devices import check_devices, choose_device
from spikingmoe.train.job import Job
from spikingmoe.train.processes import run_on_devices

CPU = torch.device("cpu")
#: Of steps of 31, 31 and 1 the devices take 16 and 15, and 1 and none.
SAMPLES, BATCH = 63, 31
WEIGHTS = [f.name for f in fields(TrainConfig) if f.name.endswith("_weight")]
PLAIN = replace(SETTINGS, **dict.fromkeys(WEIGHTS, 0.0), max_shift=0, batch_size=BATCH)


def train_on(world, folder, settings, *, still=False):
    """What each device wrote down, and what was told."""
    told, data = [], small_data(SAMPLES)
    make_run_folder(folder)
    options = RunOptions(device="cpu", devices=world, logs=False)
    job = Job(MODEL, settings, data, data.train, folder, None, options, 60.0)
    watched = WatchedJob(job, folder, still)
    run_on_devices(watched, CPU, world, lambda *what: told.append(what))
    return [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(world)], told


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return train_on(1, tmp_path_factory.mktemp("one"), PLAIN, still=True)[0][0]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    return train_on(2, tmp_path_factory.mktemp("two"), PLAIN, still=True)


def test_devices_share_the_samples_of_each_step(one, two):
    (first, second), _ = two
    for whole, left, right in zip(one["samples"], first["samples"], second["samples"], strict=True):
        assert sorted(whole) == sorted(left + right)
    assert [len(s) for s in first["samples"]] == [16, 16, 1] * 2
    assert [len(s) for s in second["samples"]] == [15, 15, 0] * 2


def test_gradients_are_the_mean_over_all_samples(one, two):
    """With norms that stand still a step does not depend on how its samples are shared out."""
    (first, second), _ = two
    assert one["gradients"]
    assert first["gradients"] == second["gradients"]
    for name, gradient in one["gradients"].items():
        whole, shared = torch.tensor(gradient), torch.tensor(first["gradients"][name])
        # float32 sums in another order
        assert torch.allclose(shared, whole, rtol=1e-3, atol=1e-5), name
    assert any(max(map(abs, gradient)) > 1e-3 for gradient in one["gradients"].values())


def test_metrics_count_every_sample_once(one, two):
    (first, second), told = two
    assert first["history"] == second["history"]
    for mine, whole in zip(first["history"], one["history"], strict=True):
        right = mine["train_accuracy"] * SAMPLES
        assert right == pytest.approx(round(right))
        assert mine["loss"] == pytest.approx(whole["loss"], rel=0.05)
    assert first["history"][0]["loss"] == pytest.approx(one["history"][0]["loss"], rel=2e-3)
    assert [what for what, _ in told] == ["epoch_line"] * 2


def test_replicas_stay_equal_bit_for_bit(tmp_path):
    """Batch norms have statistics of their own per device; what they keep is the mean."""
    settings = replace(SETTINGS, ema_decay=0.9, precision="bf16")
    (first, second), _ = train_on(2, tmp_path, settings)
    assert first["digest"] == second["digest"]
    assert first["biases"] == second["biases"]
    assert any(map(any, first["biases"]))
    assert load_run(tmp_path).epoch == 2


# ---- from the command line


@pytest.fixture
def started():
    """Processes that are killed at the end, whatever happens."""
    children = []
    yield children
    for child in children:
        child.kill()
        child.wait()


def start_cli(started, out, *more):
    argv = [sys.executable, "-m", "spikingmoe.cli.main", "train", "--epochs=500", f"--out={out}"]
    argv += ["--batch-size=512", "--device=cpu", "--devices=2", "--depth=1", "--logs=false", *more]
    child = subprocess.Popen(
        argv,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        text=True,
        stdout=subprocess.DEVNULL,
    )
    started.append(child)
    deadline = time.monotonic() + 120
    while not checkpoints(out):
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return child


def children_of(pid):
    listed = subprocess.run(
        ["ps", "-ww", "-o", "pid=", "-o", "args=", "--ppid", str(pid)],
        capture_output=True,
        text=True,
    )
    rows = [line.split(maxsplit=1) for line in listed.stdout.splitlines()]
    return [int(pid) for pid, words in rows if "spawn_main" in words]


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_sigterm_ends_all_processes_and_keeps_a_run_that_goes_on(started, tmp_path):
    child = start_cli(started, tmp_path)
    ranks = children_of(child.pid)
    assert len(ranks) == 2
    child.send_signal(signal.SIGTERM)
    sent = time.monotonic()
    _, err = child.communicate(timeout=30)
    assert time.monotonic() - sent < 10
    assert child.returncode == 143, err
    assert err == "spikingmoe: terminated; --resume goes on\n"
    assert not any(alive(pid) for pid in ranks)
    stopped = load_run(tmp_path)
    # goes on, also with another number of devices
    child = start_cli(started, tmp_path, "--resume", "--devices=1")
    while load_run(tmp_path).epoch <= stopped.epoch:
        assert child.poll() is None, child.communicate()
        time.sleep(0.1)


@pytest.mark.slow
def test_a_device_that_dies_ends_the_training(started, tmp_path):
    child = start_cli(started, tmp_path)
    victim, other = children_of(child.pid)
    os.kill(victim, signal.SIGKILL)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 2, err
    assert err.splitlines()[-1].startswith("spikingmoe: training: the processes of 2 devices ended")
    assert "--resume" in err
    assert not alive(other)


# ---- what is refused


def test_a_device_that_is_not_there():
    assert choose_device("cpu") == CPU
    if not torch.cuda.is_available():
        assert choose_device("auto") == CPU
        with pytest.raises(ValueError, match=r"device='cuda:3': torch .* sees 0 CUDA devices"):
            choose_device("cuda:3")
    with pytest.raises(ValueError, match="devices=33 share batches of batch_size=32"):
        check_devices(RunOptions(device="cpu", devices=33), SETTINGS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "gpu"}, "device='gpu'; use auto, cpu, cuda or cuda:N"),
        (
            {"device": "cuda:1", "devices": 2},
            "device='cuda:1' is one device, devices=2 asks for more",
        ),
        ({"devices": 0}, "devices=0 must be at least 1"),
        ({"workers": -1}, "workers=-1"),
        ({"save_minutes": -1.0}, "save_minutes=-1.0 at least 0"),
    ],
)
def test_options_that_make_no_sense(options, message):
    with pytest.raises(ValueError, match=message):
        RunOptions(**options)
