"""`spikingmoe quantise` on a small trained run: what it writes, resuming, and what it refuses."""

import json
from dataclasses import replace

import pytest
from small_runs import MODEL, SETTINGS, small_data

from hardware.ir.graph import SpikeGraph
from spikingmoe.cli.main import main
from spikingmoe.train.fit import train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A mixture, trained until it is better than guessing."""
    out = tmp_path_factory.mktemp("quantise") / "run"
    train(MODEL, replace(SETTINGS, epochs=6), small_data(train=600), out)
    return out


def quantise(run, program, *options):
    return main(["quantise", str(run), "-o", str(program), "--images=100", "--check=20", *options])


def metrics(program):
    return json.loads((program.parent / f"{program.name}.quantise" / "metrics.json").read_text())


def test_calibration(run, tmp_path, capfd):
    program = tmp_path / "p"
    assert quantise(run, program, "--calibration=64") == 0
    graph, found = SpikeGraph.load(str(program)), metrics(program)
    assert graph.arithmetic == "fixed"
    assert found["written"] == "calibrated"
    assert set(found["accuracy"]) == {"float", "rounded", "calibrated"}
    for accuracy in found["accuracy"].values():
        assert accuracy["test"] > 0.2  # guessing: 0.1
    assert found["torch_against_reference"]["differing"] == 0
    assert found["torch_against_reference"]["compared"] > 10_000
    assert "0 differ" in capfd.readouterr().out
    assert main(["simulate", str(program), "--backend=reference", "--samples=20"]) == 0


def test_tuning_with_few_bits_and_resuming(run, tmp_path, capfd):
    options = ("--weight-bits=3", "--calibration=32", "--train-samples=192", "--batch-size=32")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert quantise(run, whole, *options, "--epochs=2") == 0
    found = metrics(whole)
    assert found["written"] == "tuned"
    assert len(found["tuning_losses"]) == 2
    state = tmp_path / "whole.quantise" / "tuning.state"
    assert state.is_file()
    assert quantise(run, parts, *options, "--epochs=2") == 0
    assert whole.read_bytes() == parts.read_bytes()
    capfd.readouterr()
    assert quantise(run, whole, *options, "--epochs=2", "--resume") == 0  # nothing left to do
    assert whole.read_bytes() == parts.read_bytes()
    assert quantise(run, whole, *options, "--epochs=3", "--resume") == 2
    assert "belongs to another tuning" in capfd.readouterr().err


@pytest.mark.parametrize(("options", "message"), [
    (["--weight-bits=9"], "weight_bits=9; use 2 to 8"),
    (["--epochs=-1"], "epochs=-1; use at least 0"),
    (["--headroom=0.5"], "headroom=0.5; use at least 1"),
    (["--check=0"], "check=0; use at least 1 image"),
    (["--epochs=1", "--distillation=3"], "distillation=3.0 must lie in 0 to 1"),
    (["--epochs=1", "--learning-rate=0"], "learning_rate=0.0 must be above 0"),
])  # fmt: skip
def test_what_it_refuses(run, tmp_path, capfd, options, message):
    assert quantise(run, tmp_path / "p", *options) == 2
    assert message in capfd.readouterr().err
    assert not (tmp_path / "p").exists()
    assert quantise(run, tmp_path) == 2
    assert "is a folder; name a file" in capfd.readouterr().err
