"""A network of Norse neurons through every command: it is the same network."""

import json

import pytest
from small_runs import tiny_options

from spikingmoe.cli.main import main
from spikingmoe.train.checkpoint import load_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """{neuron: a run of one epoch}, by the same recipe."""
    folder = tmp_path_factory.mktemp("norse")
    for neuron in ("lif", "norse"):
        argv = ["train", *tiny_options(), f"--neuron={neuron}", f"--out={folder / neuron}"]
        assert main(argv) == 0
    return {neuron: folder / neuron for neuron in ("lif", "norse")}


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_training_is_the_same(runs):
    values = {neuron: metrics(run) for neuron, run in runs.items()}
    assert values["norse"]["config"]["model"]["neuron"] == "norse"
    assert "norse" in load_run(runs["norse"]).versions
    assert "norse" not in load_run(runs["lif"]).versions
    losses = [v["history"][0]["loss"] for v in values.values()]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)  # gradients differ by rounding
    assert values["norse"]["accuracy"]["test"]["samples"] == 359


def test_energy_counts_spikes(runs):
    assert main(["energy", str(runs["norse"]), "--twins=false", "--images=8"]) == 0
    values = metrics(runs["norse"] / "energy")
    assert set(values["synops_per_sample"]) == {"moe"}
    assert values["synops_per_sample"]["moe"] > 0


def test_inspect_and_report_take_it(runs):
    run = str(runs["norse"])
    assert main(["inspect", run, "--samples=20"]) == 0
    assert main(["report", run, "--samples=4"]) == 0


@pytest.mark.lava
def test_verify_finds_no_difference(runs):
    argv = ["verify", str(runs["norse"]), "--twins=false", "--images=8", "--samples=2"]
    assert main(argv) == 0
    assert metrics(runs["norse"] / "verify")["verify"]["same"] is True
