"""A budget of synaptic operations in training, and fewer steps at inference, by the command line."""

import json
from dataclasses import replace

import pytest
import torch
from small_runs import MODEL, SETTINGS, differences, small_data, tiny_options

from hardware.ir.graph import SpikeGraph
from hardware.lowering import lower
from spikingmoe.cli.fewer_steps import ENERGY
from spikingmoe.cli.main import main
from spikingmoe.cli.metrics import count_images
from spikingmoe.config import RunOptions
from spikingmoe.train.checkpoint import checkpoints, load_run
from spikingmoe.train.fit import train
from spikingmoe.train.operations import OperationMeter
from spikingmoe.train.reporting import Watch

OPTIONS = RunOptions(device="cpu", logs=False)


@pytest.fixture(scope="module")
def data():
    return small_data()


@pytest.fixture(scope="module")
def free(data, tmp_path_factory):
    settings = replace(SETTINGS, epochs=30)
    return train(MODEL, settings, data, tmp_path_factory.mktemp("free"), options=OPTIONS)


def synops(run, split):
    return count_images(lower(run.model), split).synops_per_sample


def test_the_count_falls_to_the_budget(data, free, tmp_path):
    """150 steps are few: spikes (pixels apart) come within 30 % of what the budget leaves them."""
    floor = OperationMeter(free.model).floor(data.validation.images)
    budget = 0.5 * (floor + synops(free, data.validation))
    settings = replace(free.train_config, synops_budget=budget)
    run = train(MODEL, settings, data, tmp_path, options=OPTIONS)
    used = synops(run, data.validation)
    assert used - floor < 1.3 * (budget - floor)
    assert used > 1.02 * floor, "kept, not by falling silent"
    assert run.history[-1]["synops"] == pytest.approx(used, rel=0.01)


def test_a_budget_above_what_is_used_changes_no_weight(data, free, tmp_path):
    """It costs nothing then, and measuring changes no more than the order of sums."""
    settings = replace(SETTINGS, epochs=1)
    plain = train(MODEL, settings, data, tmp_path / "plain", options=OPTIONS)
    ample = replace(settings, synops_budget=1e9)
    run = train(MODEL, ample, data, tmp_path / "ample", options=OPTIONS)
    assert run.history[-1]["synops_multiplier"] == 0
    assert run.history[-1]["loss"] == pytest.approx(plain.history[-1]["loss"], rel=1e-3)
    assert "synops" not in plain.history[-1]


def test_a_budget_below_the_pixels_own_is_refused(data, tmp_path):
    settings = replace(SETTINGS, synops_budget=5000.0)
    message = "synops_budget=5000 is below the 5,616 synaptic operations per image that the pixels"
    with pytest.raises(ValueError, match=message):
        train(MODEL, settings, data, tmp_path, options=OPTIONS)


def rates(run, split):
    meter = OperationMeter(run.model)
    with meter.watching(), torch.no_grad():
        run.model(split.images)
        return meter.measure(split.images).rates


def test_rates_fall_towards_the_target(data, free, tmp_path):
    settings = replace(free.train_config, rate_target=0.02, rate_weight=100.0)
    run = train(MODEL, settings, data, tmp_path, options=OPTIONS)
    excess = [(rates(r, data.validation) - 0.02).clamp(min=0).square().mean() for r in (run, free)]
    assert excess[0] < 0.5 * excess[1]


def test_a_budgeted_training_resumes_with_the_same_bits(data, tmp_path):
    settings = replace(SETTINGS, epochs=2, synops_budget=6000.0, rate_weight=1.0)
    train(MODEL, settings, data, tmp_path / "whole", options=OPTIONS)

    class Stop(Exception):
        pass

    def stop(position):
        if (position.epoch, position.step) == (1, 2):
            raise Stop

    often = replace(OPTIONS, save_minutes=1e-9)
    watch = Watch(position=stop, every_s=0)
    with pytest.raises(Stop):
        train(MODEL, settings, data, tmp_path / "parts", options=often, watch=watch)
    train(MODEL, settings, data, tmp_path / "parts", options=OPTIONS, resume=True)
    newest = [checkpoints(tmp_path / name)[0] for name in ("whole", "parts")]
    assert differences(*newest) == []


def test_the_command_line(tmp_path, capsys):
    run = tmp_path / "run"
    asked = ["--synops-budget=6.5k", "--out", str(run)]
    assert main(["train", *tiny_options(), *asked]) == 0
    assert "synaptic operations per image (validation)" in capsys.readouterr().out
    assert load_run(run).train_config.synops_budget == 6500
    words = ["--time-steps=1..2", "--early-exit=5", "--images=32", "--out", str(tmp_path)]
    assert main(["evaluate", str(run), *words]) == 0
    found = json.loads((tmp_path / "metrics.json").read_text())["fewer_steps"]
    one, two = found["steps"]
    assert one["synops_per_sample"] < two["synops_per_sample"]
    assert two["latency_steps"] - one["latency_steps"] == 1
    assert 0 < one[ENERGY] < two[ENERGY]
    assert one[ENERGY] <= found["early_exit"][ENERGY] <= two[ENERGY]
    assert sum(found["early_exit"]["histogram"]) == 32
    program = tmp_path / "one.program"
    assert main(["lower", str(run), "--time-steps=1", "-o", str(program)]) == 0
    assert SpikeGraph.load(str(program)).time_steps == 1
    energy = ["--time-steps=1", "--twins=false", "--images=32", "--out", str(tmp_path / "e")]
    assert main(["energy", str(run), *energy]) == 0
    counted = json.loads((tmp_path / "e" / "metrics.json").read_text())
    assert counted["synops_per_sample"]["moe"] == pytest.approx(one["synops_per_sample"])
    priced = counted["energy"]["horowitz45"]["moe"]["energy_pj_per_sample"]["value"]
    assert priced / 1e3 == pytest.approx(one[ENERGY])
    capsys.readouterr()
    for words, message in {
        ("evaluate", str(run), "--time-steps=3"): "time_steps=3; the run was trained for 2",
        ("evaluate", str(run), "--time-steps=x"): "time_steps='x'; use a number, 1..2, or a list",
        ("evaluate", str(run), "--early-exit=-1"): "early_exit=-1.0; use percentage points",
        ("lower", str(run), "--time-steps=0", "-o", "x"): "time_steps=0; the run was trained for 2",
        ("train", "--synops-budget=many"): "'many' is no number of operations",
        ("train", "--synops-budget=0.5"): "synops_budget=0.5 is a number of synaptic operations",
    }.items():
        assert main(list(words)) == 2
        assert message in capsys.readouterr().err.replace("\n", " ")


def test_a_window_that_ends_before_its_decision_is_refused(tmp_path, capsys):
    run = tmp_path / "run"
    options = [*tiny_options(), "--hold=window", "--hold-step=1", "--out", str(run)]
    assert main(["train", *options]) == 0
    assert main(["lower", str(run), "--time-steps=1", "-o", str(tmp_path / "x")]) == 2
    assert "hold_step=1 must lie in 0..0" in capsys.readouterr().err
    words = ["--time-steps=1..2", "--early-exit=50", "--images=8", "--out", str(tmp_path)]
    assert main(["evaluate", str(run), *words]) == 0
    one, two = json.loads((tmp_path / "metrics.json").read_text())["fewer_steps"]["steps"]
    assert one[ENERGY] is None  # there is no such network
    assert two[ENERGY] > 0
    assert torch.get_num_threads() == 1
