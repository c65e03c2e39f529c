"""The routing benchmark's command line: it trains, resumes, shares work, reports, and refuses."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from benchmarks.epoch_clock import EpochClock
from benchmarks.locks import claim
from benchmarks.routing import main
from benchmarks.routing_study.experiment import Job

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks/routing.py"
TINY = [
    "--set",
    "stem_channels=4",
    "stem_strides=2,2",
    "embed_dim=8",
    "num_heads=2",
    "expert_width=8",
    "prompt_width=4",
    "time_steps=2",
    "depth=1",
    "batch_size=64",
    "--train-samples=64",
    "--synops-images=8",
]
SETTINGS = [*TINY, "--epochs=1", "--variants", "mixture", "membrane", "--seeds", "0", "1"]


def options(folder, *more):
    return [f"--out={folder / 'out'}", f"--json={folder / 'results.json'}", *more]


def results(folder):
    return json.loads((folder / "results.json").read_text())


def checkpoints(folder):
    """Content of every checkpoint by its path."""
    return {p: p.read_bytes() for p in (folder / "out/runs").glob("*/checkpoints/*")}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Two dense twins, the mixture and one that does not lower: two seeds, one epoch."""
    folder = tmp_path_factory.mktemp("routing")
    assert main(options(folder, *SETTINGS, f"--plot={folder / 'plot.png'}")) == 0
    return folder


def test_results_say_where_they_come_from_and_cover_every_run(done):
    found = results(done)
    assert {"machine", "versions", "command", "seeds", "rows", "ratios"} <= set(found)
    assert found["seeds"] == [0, 1]
    assert [row["variant"] for row in found["rows"]] == [
        "dense_1x",
        "dense_params",
        "mixture",
        "membrane",
    ]
    assert found["missing"] == []
    assert found["experiment"]["settings"]["train_samples"] == 64
    for row in found["rows"]:
        assert row["n"] == 2
        assert row["test_images"] == 359
        assert 0 <= row["test_accuracy"]["mean"] <= 1
        assert row["test_accuracy"]["low"] is not None


def test_operations_are_split_and_a_refusal_is_told(done):
    rows = {row["variant"]: row for row in results(done)["rows"]}
    parts = rows["mixture"]["synops_by_part"]
    split = parts["experts"] + parts["router"] + parts["prompt"] + parts["rest"]
    assert split == pytest.approx(parts["total"])
    assert parts["total"] == pytest.approx(rows["mixture"]["synops_per_image"]["mean"])
    assert parts["router"] > 0
    assert parts["prompt"] > 0
    assert 0 < parts["graded"] < parts["total"]
    dense = rows["dense_1x"]["synops_by_part"]
    assert (dense["router"], dense["prompt"]) == (0, 0)
    membrane = rows["membrane"]
    assert membrane["synops_per_image"] is None
    assert "router" in membrane["refusal"]
    assert membrane["comparisons"]["equal_synops"] == {"missing": "cannot be lowered"}
    assert membrane["comparisons"]["dense_1x"]["over_seeds"]["n"] == 2


def test_table_and_picture_lie_beside(done):
    page = (done / "results.md").read_text()
    assert "| mixture | 2 |" in page
    assert "membrane: no synops, cannot lower" in page
    with Image.open(done / "plot.png") as picture:
        assert picture.width > 800


def test_finished_runs_are_reused_and_more_can_join(done, capfd):
    before = checkpoints(done)
    assert main(options(done, *SETTINGS, "--variants", "mixture")) == 0
    out = capfd.readouterr().out
    assert "6 of 6 runs are there already" in out
    assert "epoch 1/1" not in out
    assert checkpoints(done) == before
    assert [r["variant"] for r in results(done)["rows"]] == ["dense_1x", "dense_params", "mixture"]


def test_report_only_trains_nothing(done, capfd):
    before = checkpoints(done)
    assert main(options(done, "--report-only")) == 0
    assert checkpoints(done) == before
    found = results(done)
    assert [r["variant"] for r in found["rows"]][:2] == ["dense_1x", "dense_params"]
    assert found["missing"] == []
    assert main(options(done, "--report-only", "--variants", "top2", "--seeds", "1")) == 0
    assert results(done)["missing"] == ["top2-seed1"]
    assert "not finished: top2-seed1" in capfd.readouterr().out


def test_other_settings_are_refused_by_name(done, capfd):
    argv = ["--epochs=2" if word == "--epochs=1" else word for word in SETTINGS]
    refused(
        options(done, *argv), capfd, "holds an experiment with other settings", "epochs=1, now 2"
    )


def test_an_interrupted_run_goes_on_and_ends_as_if_nothing_had_been(tmp_path):
    """Killed without warning after its second epoch; the checkpoint is bit for bit the same."""
    settings = [*TINY, "--epochs=4", "--seeds", "0", "--variants", "dense_1x"]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder in (whole, cut):
        folder.mkdir()
    assert main(options(whole, *settings)) == 0
    process = start(options(cut, *settings))
    wait_for(lambda: (cut / "out/runs/dense_1x-seed0/checkpoints/epoch-0002.safetensors").exists())
    process.kill()
    process.wait()
    assert not (cut / "out/runs/dense_1x-seed0/record.json").exists()
    assert main(options(cut, *settings)) == 0
    records = [
        json.loads((folder / "out/runs/dense_1x-seed0/record.json").read_text())
        for folder in (whole, cut)
    ]
    for name in ("test_right", "validation_accuracy", "synops", "epochs"):
        assert records[0][name] == records[1][name], name
    assert records[1]["train_seconds"] > 0


def test_two_processes_share_the_runs(tmp_path):
    """What one process holds the other leaves; a dead process holds nothing."""
    job = Job("mixture", 0)
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from pathlib import Path\n"
            "from benchmarks.locks import claim\n"
            "with claim(Path(sys.argv[1]), 'mixture-seed0') as mine:\n"
            "    print(mine, flush=True); time.sleep(60)",
            str(tmp_path),
        ],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "True\n"
        with claim(tmp_path, str(job)) as mine:
            assert not mine
        with claim(tmp_path, str(Job("mixture", 1))) as mine:
            assert mine
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        holder.stdout.close()
    with claim(tmp_path, str(job)) as mine:
        assert mine
        with claim(tmp_path, str(job)) as again:
            assert not again
    with claim(tmp_path, str(job)) as mine:
        assert mine


def test_work_of_another_process_is_left_to_it(tmp_path, capfd):
    """The runs that are free are done; the report says what is missing."""
    argv = options(tmp_path, *TINY, "--epochs=1", "--seeds", "0", "--variants", "dense_2x")
    with claim(tmp_path / "out", str(Job("dense_2x", 0))) as mine:
        assert mine
        assert main(argv) == 0
    assert "dense_2x-seed0: another process works on it" in capfd.readouterr().out
    found = results(tmp_path)
    assert found["missing"] == ["dense_2x-seed0"]
    assert "dense_params" in [row["variant"] for row in found["rows"]]
    assert not (tmp_path / "out/runs/dense_2x-seed0").exists()


def test_a_mistake_in_one_run_leaves_the_others(tmp_path, monkeypatch, capfd):
    from benchmarks.routing_study import runs as routing_runs

    measure = routing_runs.measure

    def fail(run, *args):
        if run.model_config.routing != "dense":
            raise RuntimeError("a bug")
        return measure(run, *args)

    monkeypatch.setattr(routing_runs, "measure", fail)
    argv = options(tmp_path, *TINY, "--epochs=1", "--seeds", "0", "--variants", "mixture")
    assert main(argv) == 1
    assert "mixture-seed0: RuntimeError: a bug" in capfd.readouterr().err
    assert results(tmp_path)["missing"] == ["mixture-seed0"]
    monkeypatch.setattr(routing_runs, "measure", measure)
    assert main(argv) == 0
    assert "epoch 1/1" not in capfd.readouterr().out  # it was trained, only the measuring failed
    assert results(tmp_path)["missing"] == []


def test_a_run_that_diverges_is_told_and_not_counted(tmp_path):
    argv = options(tmp_path, *TINY, "--epochs=1", "--seeds", "0", "--variants", "dense_half")
    folder = tmp_path / "out/runs/dense_half-seed0"
    assert main(argv) == 0
    record = json.loads((folder / "record.json").read_text())
    record |= {"failure": "the loss is nan", "test_right": None, "test_accuracy": None}
    (folder / "record.json").write_text(json.dumps(record))
    assert main(options(tmp_path, "--report-only", "--variants", "dense_half")) == 0
    found = results(tmp_path)
    assert found["missing"] == ["dense_half-seed0 (the loss is nan)"]
    assert "dense_half" not in [row["variant"] for row in found["rows"]]


def test_seconds_survive_an_interruption(tmp_path):
    clock = EpochClock(tmp_path / "epochs.jsonl")
    for epoch in (1, 2):
        clock.tick(epoch)
    clock.seconds = {1: 2.0, 2: 4.0}
    assert clock.total(4) == 12.0
    with (tmp_path / "epochs.jsonl").open("a") as file:
        file.write('{"epoch": 3, "sec')
    again = EpochClock(tmp_path / "epochs.jsonl")
    assert set(again.seconds) == {1, 2}
    kept = dict(again.seconds)
    again.last -= 100  # a resumed run tells its last finished epoch once more
    again.tick(2)
    assert again.seconds == kept


def refused(argv, capfd, *parts):
    """Exit code 2 and one line on stderr that says `parts`."""
    assert main([str(a) for a in argv]) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1, err
    assert err.startswith("routing.py: ")
    for part in parts:
        assert part in err


def test_bad_input_is_one_line_before_any_training(tmp_path, capfd):
    out = tmp_path / "out"
    cases = [
        (["--variants", "hsh"], ["unknown variant or family 'hsh'; did you mean 'hash'"]),
        (["--preset", "digit"], ["unknown preset 'digit'; did you mean 'digits'"]),
        (["--data", "cifar10", "--data-dir", str(tmp_path)], ["spikingmoe download cifar10"]),
        (["--data-dir", "/tmp"], ["comes with a dependency"]),
        (["--preset", "cifar-tiny"], ["data 'digits' has images (1, 8, 8)"]),
        (["--set", "exprt_width=3"], ["unknown option 'exprt_width'; did you mean 'expert_width'"]),
        (["--set", "depth=many"], ["--set depth=many: needs a value like 2"]),
        (["--set", "seed=3"], ["unknown option 'seed'"]),
        (["--set", "routing=dense", "num_experts=1"], ["preset 'digits' has no mixture to compare"]),
        (["--set", "depth=1", "--variants", "alternating"], ["variant 'alternating'", "mixture_every=2"]),
        (["--epochs", "0"], ["epochs=0 must be at least 1"]),
        (["--seeds", "-1"], ["seed=-1 must not be negative"]),
        (["--train-samples", "99999"], ["train_samples=99999", "1259"]),
        (["--synops-images", "0"], ["--synops-images 0"]),
        (["--synops-images", "360"], ["samples=360", "359"]),
        (["--report-only"], ["holds no experiment"]),
        (["--plot", str(tmp_path / "plot.txt")], ["ends in .png, .svg or .pdf"]),
        (["--plot", str(tmp_path / "no/plot.png")], ["is no file in a folder that exists"]),
    ]  # fmt: skip
    for more, parts in cases:
        refused(options(tmp_path, *more), capfd, *parts)
        assert not out.exists(), more
    (tmp_path / "file").write_text("")
    refused(
        [f"--out={tmp_path / 'file'}", f"--json={tmp_path / 'r.json'}", *SETTINGS], capfd, "file"
    )
    with pytest.raises(SystemExit) as stop:
        main(["--nonsense"])
    assert stop.value.code == 2


def test_help_lists_the_variants(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    for word in ("--report-only", "expert_choice", "dense_params", "--synops-images"):
        assert word in out


def start(argv):
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *argv], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)
