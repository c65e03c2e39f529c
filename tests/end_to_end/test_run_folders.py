"""A run's folder and its processes: one training at a time, damage got over, clusters not in the way."""

import os
from dataclasses import replace

import pytest
from small_runs import MODEL, SETTINGS

from hardware.errors import FileError
from spikingmoe.config import RunOptions
from spikingmoe.data import load_data
from spikingmoe.train.checkpoint import alone_in_run, checkpoints, load_run, newest_valid
from spikingmoe.train.fit import train
from spikingmoe.train.reporting import Watch

OPTIONS = RunOptions(device="cpu", logs=False)
SHORT = replace(SETTINGS, epochs=1, train_samples=100, warmup_epochs=0)


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


def test_two_trainings_in_one_folder_are_refused(digits, tmp_path):
    with (
        alone_in_run(tmp_path),
        pytest.raises(FileError, match="another training is at work there"),
    ):
        train(MODEL, SHORT, digits, tmp_path, options=OPTIONS)
    train(MODEL, SHORT, digits, tmp_path, options=OPTIONS)


def test_a_damaged_checkpoint_does_not_keep_the_place_of_a_good_one(digits, tmp_path):
    """After falling back, the two that are kept are both good."""
    settings = replace(SHORT, epochs=3)
    train(MODEL, settings, digits, tmp_path, options=OPTIONS)
    newest, before = checkpoints(tmp_path)
    newest.write_bytes(newest.read_bytes()[:-100])
    assert newest_valid(tmp_path) == before
    often = replace(OPTIONS, save_minutes=1e-9)
    seen = []

    def after_a_step(position):
        seen.append([p.name for p in checkpoints(tmp_path)])

    train(
        MODEL,
        settings,
        digits,
        tmp_path,
        resume=True,
        options=often,
        watch=Watch(position=after_a_step, every_s=0),
    )
    assert any("step" in names[0] for names in seen), "the damaged one is gone by then"
    for path in checkpoints(tmp_path):
        load_run(path)
    assert len(checkpoints(tmp_path)) == 2


def test_a_clusters_environment_does_not_change_who_trains(digits, tmp_path, monkeypatch):
    """Lightning would take the process for one of four."""
    for name, value in {
        "SLURM_NTASKS": "4", "SLURM_JOB_ID": "7", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NNODES": "1", "SLURM_NODELIST": "a",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    alone = train(MODEL, SHORT, digits, tmp_path / "run", options=OPTIONS)
    assert alone.epoch == 1
    assert os.listdir(tmp_path) == ["run"], "nothing beside the run"


def test_a_warm_up_that_never_ends_is_said(digits, tmp_path):
    said = []
    settings = replace(SHORT, warmup_epochs=3)
    train(MODEL, settings, digits, tmp_path, options=OPTIONS, watch=Watch(notice=said.append))
    assert any("rises throughout" in line for line in said)
