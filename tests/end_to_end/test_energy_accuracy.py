"""The study's command line: it trains, resumes, survives killed workers, shares a database, refuses."""

from __future__ import annotations

import builtins
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest

from benchmarks.energy_accuracy import main

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "energy_accuracy.py"
TINY = [
    "--experts=2", "--top-k=1", "--routing=top_k", "--time-steps=4", "--attention=qk", "--bits=8",
    "--train-samples=32", "--images=2", "--costs=horowitz45-int,horowitz45",
]  # fmt: skip
TWO = [*TINY, "--twins", "quantised_relu", "--seeds", "0"]  # the preset, two experts, a twin


def options(folder, *more):
    return [f"--out={folder / 'out'}", f"--json={folder / 'r.json'}", *map(str, more)]


def results(folder):
    return json.loads((folder / "r.json").read_text())


def trials(folder, url=None):
    if url is None:
        journal = optuna.storages.journal
        storage = optuna.storages.JournalStorage(
            journal.JournalFileBackend(str(folder / "out" / "journal.log"))
        )
    else:
        storage = optuna.storages.RDBStorage(url)
    return optuna.load_study(study_name="energy_accuracy", storage=storage).trials


def records(folder):
    return sorted(p.parent.name for p in (folder / "out" / "runs").glob("*/record.json"))


NAMES = [
    "moe-e2-k1-top_k-t4-qk-seed0",
    "moe-e4-k1-top_k-t4-qk-seed0",
    "quantised_relu-e4-k1-top_k-t4-qk-seed0",
]


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    more = ["--epochs=1", f"--plot={folder / 'p.png'}"]
    assert main(options(folder, *TWO, *more)) == 0
    return folder


def test_every_point_is_trained_measured_and_told(done):
    assert records(done) == NAMES
    assert [t.state.name for t in trials(done)] == ["COMPLETE"] * 3
    found = results(done)
    rows = {(r["name"], r["precision"]): r for r in found["rows"]}
    mixture, twin = rows["moe-e4-k1-top_k-t4-qk", "8 bits"], rows[NAMES[2][:-6], "8 bits"]
    assert set(mixture["energy_pj"]) == {"horowitz45-int", "horowitz45"}
    assert set(twin["energy_pj"]) == {"horowitz45-int"}
    assert mixture["n"] == 1
    assert twin["synops"]["mean"] == 403_840  # as the ReLU twin of the demo
    assert found["missing"] == []
    page = (done / "r.md").read_text()
    assert "| quantised_relu |" in page
    assert (done / "p.png").stat().st_size > 10_000


def test_a_second_start_trains_nothing(done, capfd):
    before = {p: p.stat().st_mtime_ns for p in (done / "out" / "runs").rglob("*.safetensors")}
    assert main(options(done, *TWO, "--epochs=1")) == 0
    assert "3 trials in" in capfd.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert len(trials(done)) == 3
    assert main(options(done, "--table-only")) == 0
    assert results(done)["missing"] == []


def test_other_settings_are_refused_by_name(done, capfd):
    refused(
        options(done, *TWO, "--epochs=2"),
        capfd,
        "holds a study with other settings",
        "epochs=1, now 2",
    )


def start(argv, **environment):
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *map(str, argv)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **environment},
    )


def wait_for(condition, process, seconds=250):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end or process.poll() is not None:
            process.kill()
            raise AssertionError(process.communicate()[0])
        time.sleep(0.02)


def epochs_of(run):
    """Numbers of the epochs that were ended and told, in order."""
    path = run / "epochs.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line)["epoch"] for line in lines]


def test_a_killed_worker_loses_and_doubles_nothing(tmp_path, capfd):
    """SIGKILL in mid-training: the same trial is taken up, and training goes on from its checkpoint."""
    argv = options(tmp_path, *TINY, "--experts=4", "--twins", "--seeds", "0", "--epochs=12")
    process = start(argv)
    run = tmp_path / "out" / "runs" / NAMES[1]
    wait_for(lambda: len(epochs_of(run)) >= 3, process)
    process.kill()
    process.communicate()
    assert [t.state.name for t in trials(tmp_path)] == ["RUNNING"]
    assert not (run / "record.json").exists()
    kept = len(epochs_of(run))
    assert main(argv) == 0
    out = capfd.readouterr().out
    assert "had lost its worker: taken up again" in out
    assert "epoch 1/12" not in out
    assert [t.state.name for t in trials(tmp_path)] == ["COMPLETE"]
    assert epochs_of(run) == list(range(1, 13))
    assert kept < 12


def test_ctrl_c_ends_the_workers_and_says_how_to_go_on(tmp_path):
    argv = options(tmp_path, *TINY, "--twins", "--seeds", "0", "--epochs=500", "--jobs=2")
    process = start(argv)
    wait_for(lambda: len(list((tmp_path / "out").glob("runs/*/checkpoints/epoch-*"))) >= 2, process)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert time.monotonic() - began < 20
    assert process.returncode == 130
    assert (
        out.strip().splitlines()[-1] == "energy_accuracy.py: interrupted; the same command goes on"
    )
    assert "Traceback" not in out
    states = [t.state.name for t in trials(tmp_path)]
    assert set(states) <= {"RUNNING", "WAITING"}, "none is lost"


def test_two_processes_share_a_database(tmp_path):
    """Two starts at once, with folders of their own: each run once."""
    url = f"sqlite:///{tmp_path / 'study.db'}"
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        folder.mkdir()
    argv = [*TWO, "--epochs=1", f"--storage={url}"]
    processes = [start(options(folder, *argv)) for folder in folders]
    for process in processes:
        out, _ = process.communicate(timeout=200)
        assert process.returncode == 0, out
    complete = [t for t in trials(tmp_path, url) if t.state.name == "COMPLETE"]
    assert sorted(t.user_attrs["key"] for t in complete) == NAMES
    assert sorted([*records(folders[0]), *records(folders[1])]) == NAMES


def test_jobs_of_a_cluster(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    more = [
        "--twins",
        "--seeds",
        "0",
        "--epochs=1",
        "--experts=4",
        "--slurm",
        "--slurm-executor=local",
    ]
    assert main(options(tmp_path, *TINY, *more)) == 0
    assert records(tmp_path) == [NAMES[1]]
    assert list((tmp_path / "out" / "slurm").glob("*_log.out"))


def test_a_search_tries_as_many_points_as_wished(tmp_path):
    more = ["--study=pareto", "--trials=2", "--seeds", "0", "--epochs=1", "--experts", "2", "4"]
    assert main(options(tmp_path, *TINY, *more)) == 0
    found = [t for t in trials(tmp_path) if t.state.name == "COMPLETE"]
    assert len(found) == 2
    assert all(len(t.values) == 2 and t.values[1] > 0 for t in found)


def refused(argv, capfd, *parts):
    assert main([str(a) for a in argv]) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1, err
    assert err.startswith("energy_accuracy.py: ")
    for part in parts:
        assert part in err


def test_bad_input_is_one_line_before_any_training(tmp_path, capfd):
    cases = [
        (["--twins", "relo"], ["unknown twin 'relo'; did you mean 'relu'"]),
        (["--routing", "topk"], ["routing='topk'"]),
        (["--preset", "digit"], ["unknown preset 'digit'"]),
        (["--costs", "lemair"], ["unknown cost table 'lemair'"]),
        (["--seeds", "1", "1"], ["--seeds: 1 is given twice"]),
        (["--top-k", "9"], ["top_k=9"]),
        (["--images", "360"], ["samples=360", "359"]),
        (["--jobs", "0"], ["--jobs 0"]),
        (["--epochs", "0"], ["epochs=0"]),
        (["--plot", str(tmp_path / "plot.txt")], ["ends in .png, .svg or .pdf"]),
        (["--table-only"], ["holds no study"]),
    ]
    for more, parts in cases:
        refused(options(tmp_path, *more), capfd, *parts)
        assert not (tmp_path / "out").exists(), more
    (tmp_path / "file").write_text("")
    refused([f"--out={tmp_path / 'file'}"], capfd, "file")
    url = "sqlite:////no/such/folder/study.db"
    refused(options(tmp_path, "--storage", url), capfd, url, "cannot be opened")
    secret = "postgresql://me:secret@nowhere/db"
    refused(options(tmp_path, "--storage", secret), capfd, "cannot be opened")


def test_without_optuna_it_says_how_to_install_it(tmp_path, capfd, monkeypatch):
    load = builtins.__import__

    def missing(name, *args, **kwargs):
        if name.partition(".")[0] == "optuna":
            raise ImportError(name)
        return load(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    refused(options(tmp_path), capfd, "optuna is missing", "pip install 'spikingmoe[study]'")
