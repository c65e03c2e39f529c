"""A LightningDataModule of the user's trains with the same command."""

import json
from dataclasses import replace

import pytest
import torch
from small_runs import MODEL, SETTINGS, differences

from spikingmoe.cli.main import main
from spikingmoe.config import RunOptions
from spikingmoe.data import load_data
from spikingmoe.data.user_module import check_batch
from spikingmoe.train.checkpoint import checkpoints, load_run
from spikingmoe.train.fit import train
from spikingmoe.train.module import TrainingModule

SOURCE = """
import lightning, torch
from torch.utils.data import DataLoader, Dataset

class Images(Dataset):
    def __init__(self, n):
        from sklearn.datasets import load_digits
        pixels, labels = load_digits(return_X_y=True)
        self.pixels = torch.as_tensor(pixels[:n]).float().reshape(-1, 1, 8, 8) / 16
        self.labels = [int(label) for label in labels[:n]]
    def __len__(self):
        return len(self.labels)
    def __getitem__(self, i):
        noise = torch.rand(1, 8, 8) / 100  # an augmentation of the user's
        return self.pixels[i] + noise, self.labels[i]

class Mine(lightning.LightningDataModule):
    num_classes = 10
    normalisation = ((0.3,), (0.4,))
    def __init__(self, data_dir=None):
        super().__init__()
        self.data_dir = data_dir
    def prepare_data(self):
        self.prepared = True
    def setup(self, stage):
        assert self.prepared
        self.images = Images(150)
    def train_dataloader(self):
        return DataLoader(self.images, batch_size=32, shuffle=True)
    def val_dataloader(self):
        return DataLoader(self.images, batch_size=50)
    test_dataloader = val_dataloader

class Own(Mine):
    # an order of its own generator, and labels of 32 bits
    def train_dataloader(self):
        collate = torch.utils.data.default_collate
        def small(batch):
            images, labels = collate(batch)
            return images, labels.int()
        generator = torch.Generator().manual_seed(0)
        return DataLoader(self.images, 32, shuffle=True, generator=generator, collate_fn=small)

class Plain:
    pass

class Broken(Mine):
    def setup(self, stage):
        raise RuntimeError("no such disk")

class Nameless(Mine):
    num_classes = None

class Few(Mine):
    num_classes = 7

class Endless(Mine):
    def train_dataloader(self):
        return iter(super().train_dataloader())

class Doubles(Mine):
    def val_dataloader(self):
        return [(torch.zeros(2, 1, 8, 8).double(), torch.zeros(2).long())]

class Wrong(Mine):
    normalisation = "none"
"""
TINY = ["--stem-channels=[4]", "--stem-strides=[2,2]", "--embed-dim=8", "--num-heads=2"]
TINY += ["--expert-width=8", "--prompt-width=4", "--time-steps=2", "--depth=1"]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("source") / "mine.py"
    path.write_text(SOURCE)
    return path


def test_the_command_line_trains_and_evaluates_it(source, tmp_path, monkeypatch, capfd):
    argv = ["train", f"--data={source}:Mine", *TINY, "--epochs=2", "--warmup-epochs=1"]
    assert main([*argv, f"--out={tmp_path}"]) == 0
    run = load_run(tmp_path)
    assert run.train_config.batch_size == 32, "of the loader"
    assert run.train_config.data == f"{source}:Mine"
    assert run.data_notes.normalisation.mean == (0.3,)
    assert main(["evaluate", str(tmp_path)]) == 0
    values = json.loads((tmp_path / "evaluate" / "metrics.json").read_text())
    assert values["accuracy"]["test"]["samples"] == 150
    monkeypatch.chdir(source.parent)
    assert load_data("mine:Mine").classes == tuple("0123456789"), "also by its module's name"
    capfd.readouterr()
    assert main([*argv, "--batch-size=16", f"--out={tmp_path / 'x'}"]) == 2
    err = capfd.readouterr().err
    assert "batch_size=16, but data" in err
    assert "makes its own batches; use batch_size=32" in err


@pytest.mark.parametrize("within", [False, True])
@pytest.mark.parametrize("kind", ["Mine", "Own"])
def test_it_goes_on_exactly(source, tmp_path, monkeypatch, kind, within):
    """From the end of an epoch, and from a checkpoint within one."""
    data = load_data(f"{source}:{kind}")
    options = RunOptions(device="cpu", logs=False, save_minutes=1e-9 if within else 0.0)
    settings = replace(SETTINGS, epochs=3, data=data.name, max_shift=1)
    whole = train(MODEL, settings, data, tmp_path / "whole", options=options)
    step = TrainingModule.training_step

    class Stop(Exception):
        pass

    def stop(self, batch, batch_index):
        if (self.current_epoch, batch_index) == (1, 2):
            raise Stop
        return step(self, batch, batch_index)

    with monkeypatch.context() as patched:
        patched.setattr(TrainingModule, "training_step", stop)
        with pytest.raises(Stop):
            train(MODEL, settings, data, tmp_path / "cut", options=options)
    torch.manual_seed(99)
    assert ("step" in checkpoints(tmp_path / "cut")[0].name) == within
    train(MODEL, settings, data, tmp_path / "cut", resume=True, options=options)
    # the run-time checks of the tests draw from Python's generator
    found = differences(checkpoints(tmp_path / "cut")[0], whole.path)
    assert [d for d in found if not d.startswith("/generators/python")] == []


def test_the_input_limit_does_not_depend_on_chance(source):
    limits = set()
    for seed in range(4):
        torch.manual_seed(seed)
        limits.add(load_data(f"{source}:Mine").input_limit)
        assert torch.initial_seed() == seed
    assert len(limits) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "missing.py:Mine",
            "there is no file .*missing.py; use package.module:ClassName or file.py",
        ),
        ("no_such_package.data:Mine", "importing it fails: ModuleNotFoundError: .*no_such_package"),
        ("{}:Mien", "there is no class 'Mien'; did you mean Mine?"),
        ("{}:Plain", "Plain is no LightningDataModule"),
        ("{}:Broken", r"setup\('fit'\) fails: RuntimeError: no such disk"),
        ("{}:Nameless", "has neither classes .* nor num_classes"),
        ("{}:Few", "train_dataloader' gives labels from 0 to [89]; with 7 classes they are 0 to 6"),
        ("{}:Endless", "train_dataloader gives .*; needs one DataLoader with a length"),
        ("{}:Doubles", "val_dataloader gives list; needs one DataLoader"),
        ("{}:Wrong", r"normalisation='none' needs \(mean, std\)"),
    ],
)
def test_what_is_wrong_is_said_before_training(source, name, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_data(name.format(source))
    assert "\n" not in str(caught.value)


IMAGES, LABELS = torch.zeros(3, 1, 8, 8), torch.tensor([0, 1, 2])


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (IMAGES, r"gives Tensor; needs \(images, labels\)"),
        ((IMAGES.double(), LABELS), "images that are torch.float64 of shape"),
        ((IMAGES[0], LABELS), r"of shape \(1, 8, 8\); needs torch.float32 of shape \(batch"),
        (([1], LABELS), "images that are list"),
        ((IMAGES, LABELS.float()), "labels that are torch.float32"),
        ((IMAGES, LABELS[:2]), r"labels .* of shape \(2,\); needs whole numbers of shape \(3,\)"),
        ((IMAGES, LABELS - 1), "labels from -1 to 1"),
        ((IMAGES / 0, LABELS), "no finite numbers"),
    ],
)
def test_batches_are_checked(batch, message):
    with pytest.raises(ValueError, match=message):
        check_batch("x", batch, 3)
    check_batch("x", (IMAGES, LABELS), 3)
