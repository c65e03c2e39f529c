"""A data set in a folder of the user's: the folder is given to each command and kept by none."""

import json
from dataclasses import replace

import pytest
import torch
from fake_cifar import write_cifar
from small_runs import MODEL, SETTINGS, small_data

from spikingmoe.cli.main import main
from spikingmoe.config import ModelConfig
from spikingmoe.data import load_data
from spikingmoe.data.published import PUBLISHED
from spikingmoe.train.fit import train, training_samples

TINY = [
    "--image-size=32",
    "--input-channels=3",
    "--stem-channels=[4]",
    "--stem-strides=[4,4]",
    "--embed-dim=8",
    "--num-heads=2",
    "--expert-width=8",
    "--num-experts=3",
    "--prompt-width=4",
    "--time-steps=2",
    "--depth=1",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_cifar(tmp_path_factory.mktemp("a-folder-of-the-users"), "cifar10", per_class=20)


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    argv = ["train", "--data=cifar10", f"--data-dir={folder}", *TINY, "--epochs=2"]
    assert main([*argv, "--flip=true", "--train-samples=100", "--max-shift=2", f"--out={out}"]) == 0
    return out


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_a_run_on_local_data_says_what_it_used(run):
    values = metrics(run)
    recipe = values["config"]["train"]
    assert (recipe["data"], recipe["train_samples"], recipe["flip"]) == ("cifar10", 100, True)
    assert values["accuracy"]["test"]["samples"] == 200


def test_no_file_of_the_run_knows_the_folder(run, folder):
    files = [path for path in run.rglob("*") if path.is_file()]
    assert len(files) >= 2
    for path in files:
        assert b"a-folder-of-the-users" not in path.read_bytes(), path


def test_each_command_takes_the_folder(run, folder, tmp_path, capfd, monkeypatch):
    given = f"--data-dir={folder}"
    assert main(["evaluate", str(run), given]) == 0
    assert metrics(run / "evaluate")["accuracy"]["test"] == metrics(run)["accuracy"]["test"]
    assert main(["energy", str(run), given, "--twins=false", "--images=12"]) == 0
    assert "12 test images" in metrics(run / "energy")["energy_counted_on"]
    assert main(["report", str(run), given, "--samples=4"]) == 0
    program = str(tmp_path / "run.program")
    assert main(["lower", str(run), "-o", program]) == 0
    assert main(["simulate", program, given, "--backend=reference", "--samples=9"]) == 0
    assert metrics(tmp_path / "run.program.simulate")["samples"] == 9
    capfd.readouterr()
    monkeypatch.setenv("SPIKINGMOE_DATA", str(tmp_path / "missing"))
    (archive,) = PUBLISHED["cifar10"]
    nowhere = replace(archive.remote, url="ftp://no.where/archive")
    monkeypatch.setitem(PUBLISHED, "cifar10", (replace(archive, remote=nowhere),))
    for argv in (
        ["evaluate", str(run)],
        ["energy", str(run)],
        ["verify", str(run)],
        ["report", str(run)],
        ["simulate", program, "--backend=reference"],
        ["train", "--data=cifar10", *TINY],
    ):
        assert main(argv) == 2
        err = capfd.readouterr().err
        assert "ftp://no.where/archive: is no address of http:// or https://" in err
        assert err.count("\n") == 1
    monkeypatch.setenv("SPIKINGMOE_DATA", str(folder))
    assert main(["evaluate", str(run)]) == 0
    assert metrics(run / "evaluate")["accuracy"]["test"] == metrics(run)["accuracy"]["test"]


def test_the_digits_need_no_folder(tmp_path, capfd):
    argv = ["train", f"--data-dir={tmp_path}", f"--out={tmp_path / 'run'}"]
    assert main(argv) == 2
    assert "comes with a dependency and is read from no folder" in capfd.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_wrong_folder_is_refused_in_one_line(run, tmp_path, capfd):
    assert main(["evaluate", str(run), f"--data-dir={tmp_path}"]) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    assert (
        "cifar-10-batches-py: no such folder; get the data with `spikingmoe download cifar10" in err
    )


def test_a_wrong_number_of_images_is_refused(run, folder, capfd):
    for images in (0, 201):
        assert main(["energy", str(run), f"--data-dir={folder}", f"--images={images}"]) == 2
        assert f"images={images}; there are 200 test images, use 1 to 200" in capfd.readouterr().err


# ---- the recipe's share of the data


def test_a_recipe_trains_on_as_many_samples_as_it_says():
    data = small_data(160)
    assert training_samples(SETTINGS, data) is data.train
    some = training_samples(replace(SETTINGS, train_samples=40), data)
    assert len(some) == 40
    counts = some.labels.bincount(minlength=10)
    assert int(counts.max() - counts.min()) <= 1
    with pytest.raises(
        ValueError, match="train_samples=161; data 'digits' has 160 training images"
    ):
        training_samples(replace(SETTINGS, train_samples=161), data)


def test_the_share_is_what_the_model_is_trained_on(tmp_path):
    """Training on the first 40 dealt samples is training on a data set that holds nothing else."""
    data = small_data(160)
    some = replace(SETTINGS, train_samples=40)
    by_recipe = train(MODEL, some, data, tmp_path / "recipe")
    by_hand = replace(data, train=data.train.subset(40))
    by_hand = train(MODEL, SETTINGS, by_hand, tmp_path / "hand")
    weights = [run.model.state_dict() for run in (by_recipe, by_hand)]
    for name, value in weights[0].items():
        if name != "input_limit":  # of the whole training set, so that subsets are comparable
            assert torch.equal(value, weights[1][name]), name


def test_too_many_samples_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match="use 1 to 160, or 0 for all"):
        train(MODEL, replace(SETTINGS, train_samples=1000), small_data(160), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_flips_change_what_is_learned_and_repeat_themselves(tmp_path):
    data, flip = small_data(64), replace(SETTINGS, epochs=1, flip=True)
    heads = {
        name: train(MODEL, settings, data, tmp_path / name).model.head.weight
        for name, settings in (("one", flip), ("two", flip), ("none", replace(flip, flip=False)))
    }
    assert torch.equal(heads["one"], heads["two"])
    assert not torch.equal(heads["one"], heads["none"])


def test_bytes_train_like_the_images_they_stand_for(folder, tmp_path):
    data = load_data("cifar10", folder)
    floats = replace(data, train=type(data.train)(data.train.images, data.train.labels))
    config = ModelConfig(
        **{**MODEL.as_dict(), "input_channels": 3, "image_size": 32, "stem_strides": (4, 4)}
    )
    runs = [
        train(config, replace(SETTINGS, epochs=1), d, tmp_path / name)
        for name, d in (("bytes", data), ("floats", floats))
    ]
    for a, b in zip(*(r.model.state_dict().values() for r in runs), strict=True):
        assert torch.equal(a, b)
