"""What stops a training, and what is left then."""

import errno
import os
from dataclasses import replace

import pytest
import torch
from fake_cifar import write_cifar
from file_faults import temporaries
from small_runs import MODEL, SETTINGS, differences, small_data

from hardware.errors import FileError
from spikingmoe.cli.main import main
from spikingmoe.config import RunOptions
from spikingmoe.train.checkpoint import checkpoints, load_run
from spikingmoe.train.fit import train
from spikingmoe.train.module import TrainingError, TrainingModule

QUIET = RunOptions(device="cpu", logs=False)
EVERY_STEP = replace(QUIET, save_minutes=1e-9)


@pytest.fixture(scope="module")
def data():
    return small_data(160, 32)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, data):
    return train(MODEL, SETTINGS, data, tmp_path_factory.mktemp("whole"), options=QUIET)


def full_disk(monkeypatch, writes):
    """The disk is full from the write number `writes` on, in the middle of it."""
    real, count = os.write, 0

    def write(fd, content):
        nonlocal count
        count += 1
        if count < writes:
            return real(fd, content)
        if len(content) > 1:
            real(fd, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", write)


@pytest.mark.parametrize("writes", [1, 2, 4, 6])
def test_a_full_disk_keeps_the_checkpoint_before(whole, data, tmp_path, monkeypatch, writes):
    """Each checkpoint is one write; the sixth is that at the end of the first epoch."""
    with monkeypatch.context() as patched:
        full_disk(patched, writes)
        with pytest.raises(FileError, match=r"cannot write: No space left .*free some space"):
            train(MODEL, SETTINGS, data, tmp_path, options=EVERY_STEP)
    assert temporaries(tmp_path / "checkpoints") == []
    kept = checkpoints(tmp_path)
    assert len(kept) == min(2, writes - 1)
    if kept:
        run = load_run(tmp_path)
        assert (run.epoch, run.steps) == divmod(writes - 1, 5)
    train(MODEL, SETTINGS, data, tmp_path, resume=True, options=QUIET)
    assert undisturbed(tmp_path, whole)


def undisturbed(folder, whole):
    """The run-time checks of the tests draw from Python's generator, so that is left out."""
    found = differences(checkpoints(folder)[0], whole.path)
    return [d for d in found if not d.startswith("/generators/python")] == []


def test_a_full_disk_is_one_line(tmp_path, monkeypatch, capfd):
    full_disk(monkeypatch, 1)
    argv = ["train", "--epochs=1", "--warmup-epochs=0", "--depth=1", "--logs=false"]
    assert main([*argv, f"--out={tmp_path}"]) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1
    assert "cannot write: No space left on device; free some space (unchanged)" in err


@pytest.mark.parametrize("step", [0, 3])
def test_a_loss_that_is_no_number_keeps_the_last_good_checkpoint(data, tmp_path, monkeypatch, step):
    original = TrainingModule._routing_loss

    def routing_loss(self, routing):
        bad = (self.current_epoch, self.trainer.fit_loop.batch_idx) == (1, step)
        return original(self, routing) + (float("nan") if bad else 0.0)

    monkeypatch.setattr(TrainingModule, "_routing_loss", routing_loss)
    with pytest.raises(TrainingError, match=f"the loss is nan at epoch 1, step {step}"):
        train(MODEL, SETTINGS, data, tmp_path, options=EVERY_STEP)
    run = load_run(tmp_path)
    assert (run.epoch, run.steps) == (1, step)
    assert all(torch.isfinite(p).all() for p in run.model.parameters())


def test_weights_that_are_no_numbers_are_never_saved(data, tmp_path, monkeypatch):
    """A gradient that overflows while its loss is finite."""
    original = TrainingModule.on_before_optimizer_step

    def on_before_optimizer_step(self, optimizer):
        original(self, optimizer)
        if self.current_epoch == 1:
            self.model.head.weight.grad.fill_(float("nan"))

    monkeypatch.setattr(TrainingModule, "on_before_optimizer_step", on_before_optimizer_step)
    with pytest.raises(TrainingError, match="weights are no finite numbers"):
        train(MODEL, replace(SETTINGS, gradient_clip=0.0), data, tmp_path, options=EVERY_STEP)
    assert all(torch.isfinite(p).all() for p in load_run(tmp_path).model.parameters())


def test_a_checkpoint_of_another_preset_is_not_gone_on_with(whole, data):
    other = replace(MODEL, preset="other", num_experts=4)
    with pytest.raises(ValueError, match=r"other settings .*preset='small', now 'other'"):
        train(other, SETTINGS, data, whole.folder, resume=True, options=QUIET)


def test_training_on_the_held_out_images_too(data, tmp_path):
    settings = replace(SETTINGS, train_on_validation=True)
    run = train(MODEL, settings, data, tmp_path, options=replace(QUIET, logs=True))
    assert all("validation_accuracy" not in record for record in run.history)
    right = run.history[0]["train_accuracy"] * (160 + 32)
    assert right == pytest.approx(round(right)), "both splits count"
    assert (tmp_path / "curves.png").exists()
    header = (tmp_path / "logs" / "metrics.csv").read_text().partition("\n")[0]
    assert "firing_rate" not in header, "nothing is held out to measure it on"
    with pytest.raises(ValueError, match="train_samples=193; data 'digits' has 192"):
        train(MODEL, replace(settings, train_samples=193), data, tmp_path / "x", options=QUIET)


def test_the_command_line_copes_without_validation(tmp_path, capfd):
    argv = ["train", "--epochs=1", "--warmup-epochs=0", "--depth=1", "--train-on-validation=true"]
    assert main([*argv, "--batch-size=256", f"--out={tmp_path}"]) == 0
    out = capfd.readouterr().out
    assert "epoch 1/1, loss" in out
    assert "training" in out
    assert main(["report", str(tmp_path), "--samples=4"]) == 0


# ---- classes follow from the data


SMALL = ["--epochs=1", "--warmup-epochs=0", "--time-steps=1", "--hold-step=0", "--depth=1"]


def test_the_number_of_classes_follows_from_the_data(tmp_path, capfd):
    write_cifar(tmp_path, "cifar100", per_class=5)
    argv = ["train", "--preset=cifar-tiny", "--data=cifar100", f"--data-dir={tmp_path}", *SMALL]
    argv += ["--logs=false", "--batch-size=256"]
    assert main([*argv, f"--out={tmp_path / 'run'}"]) == 0
    assert load_run(tmp_path / "run").model_config.num_classes == 100
    capfd.readouterr()
    assert main([*argv, "--num-classes=10", f"--out={tmp_path / 'other'}"]) == 2
    err = capfd.readouterr().err
    assert "data 'cifar100' has 100 classes; model 'cifar-tiny' has num_classes=10" in err
    assert not (tmp_path / "other").exists()
