"""Recipes that come with the package."""

import tomllib
from pathlib import Path

import pytest

from spikingmoe.cli.command_line import parse
from spikingmoe.cli.main import main
from spikingmoe.cli.train import configurations
from spikingmoe.config import PRESETS, get_recipe, list_recipes
from spikingmoe.data import DATA_SETS
from spikingmoe.data.augment import check_augmentation

NAMES = list(list_recipes())
CIFAR = [f"cifar{n}-{size}" for n in (10, 100) for size in ("tiny", "small", "base")]


def test_there_is_one_per_data_set_and_preset():
    events = ["nmnist-tiny", "dvsgesture-small", "cifar10dvs-small"]
    assert sorted(NAMES) == sorted(["digits", *CIFAR, *events])


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_is_a_valid_configuration(name):
    command, args = parse(["train", "--recipe", name])
    config, settings = configurations(args, args.preset, args.data)
    assert command == "train"
    assert config.preset in PRESETS
    assert settings.data in DATA_SETS
    is_events = config.input_channels == 2
    check_augmentation(settings, channels=config.input_channels, is_events=is_events)
    about = list_recipes()[name].about
    assert 20 < len(about) < 100
    if name != "digits":
        assert f"{settings.epochs} epochs" in about
        assert f"T = {config.time_steps}" in about
        assert config.preset in about


def test_the_large_recipe_follows_the_field():
    _, args = parse(["train", "--recipe", "cifar10-base"])
    config, settings = configurations(args, args.preset, args.data)
    assert (config.preset, config.time_steps, config.detach_reset) == ("cifar-base", 4, True)
    wanted = {
        "epochs": 300, "batch_size": 128, "learning_rate": 1e-3, "weight_decay": 0.06,
        "warmup_epochs": 20, "label_smoothing": 0.1, "rand_augment_ops": 1,
        "rand_augment_magnitude": 9.0, "rand_augment_std": 0.4, "mixup": 0.5, "cutmix": 0.5,
        "mix_epochs": 200, "random_erasing": 0.25, "max_shift": 4, "flip": True,
        "precision": "bf16", "ema_decay": 0.9999,
    }  # fmt: skip
    assert {name: getattr(settings, name) for name in wanted} == wanted


@pytest.mark.parametrize(
    "argv", [["--recipe=cifar10-tiny", "--epochs=7"], ["--epochs", "7", "--recipe", "cifar10-tiny"]]
)
def test_the_command_line_wins_wherever_it_stands(argv):
    _, args = parse(["train", *argv, "--time-steps=3"])
    config, settings = configurations(args, args.preset, args.data)
    assert (settings.epochs, config.time_steps) == (7, 3)
    assert (settings.batch_size, settings.optimizer) == (64, "muon"), "and the rest is the recipe's"


def test_a_configuration_file_wins_over_the_recipe_too(tmp_path):
    (tmp_path / "mine.yaml").write_text("epochs: 9\nrecipe: cifar100-small\n")
    _, args = parse(["train", f"--config={tmp_path / 'mine.yaml'}"])
    assert (args.epochs, args.preset, args.data) == (9, "cifar-small", "cifar100")


def test_an_unknown_name_is_refused_with_the_closest(capfd):
    assert main(["train", "--recipe", "cifar10-tny"]) == 2
    err = capfd.readouterr().err
    assert err.startswith("spikingmoe: unknown recipe 'cifar10-tny'; did you mean 'cifar10-tiny'?")
    assert all(name in err for name in NAMES)
    assert err.count("\n") == 1


def test_they_are_listed(capfd):
    assert main(["recipes"]) == 0
    out = capfd.readouterr().out
    assert all(name in out for name in NAMES)
    assert "CIFAR-10 with cifar-base" in out


def test_they_are_part_of_the_package():
    """Declared as package data, and found beside the code wherever it is installed."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert "recipes/*.yaml" in project["tool"]["setuptools"]["package-data"]["spikingmoe"]
    assert get_recipe("digits").path.parent.parent.name == "spikingmoe"
