"""Event recordings and a folder of images through the whole command line: train, evaluate, verify, report."""

import json

import numpy as np
import pytest
from fake_events import write_nmnist
from PIL import Image

from spikingmoe.cli.main import main

pytest.importorskip("tonic")

TINY = [
    "--stem-channels=[4]",
    "--stem-strides=[4,4]",
    "--embed-dim=8",
    "--num-heads=2",
    "--expert-width=8",
    "--num-experts=3",
    "--prompt-width=4",
    "--time-steps=3",
    "--depth=1",
    "--batch-size=32",
    "--epochs=1",
    "--warmup-epochs=0",
]
EVENTS = ["--input-channels=2", "--image-size=48"]


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    return write_nmnist(tmp_path_factory.mktemp("recordings"))


@pytest.fixture(scope="module")
def run(recordings, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    argv = ["train", "--data=nmnist", f"--data-dir={recordings}", *EVENTS, *TINY, f"--out={out}"]
    assert main([*argv, "--max-shift=2", "--flip=true"]) == 0
    return out


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_recordings_are_trained_on_and_evaluated(run, recordings):
    assert main(["evaluate", str(run), f"--data-dir={recordings}"]) == 0
    values = metrics(run / "evaluate")
    assert values["accuracy"]["test"]["samples"] == 20
    assert values["accuracy"]["test"]["torch"] == metrics(run)["accuracy"]["test"]["torch"]


def test_recordings_lower_and_simulate(run, recordings, tmp_path):
    program = str(tmp_path / "x.program")
    assert main(["lower", str(run), "-o", program]) == 0
    argv = ["simulate", program, "--backend=reference", f"--data-dir={recordings}", "--samples=5"]
    assert main(argv) == 0
    assert metrics(tmp_path / "x.program.simulate")["samples"] == 5


def test_the_twins_of_event_data_are_trained_too(run, recordings):
    """The ReLU twin has no time: it sees all events at once."""
    argv = ["energy", str(run), f"--data-dir={recordings}", "--images=6"]
    assert main(argv) == 0
    assert {"moe", "dense", "relu"} <= set(metrics(run / "energy")["energy_pj_per_sample"])


def test_recordings_are_read_inspected_and_reported(run, recordings):
    given = f"--data-dir={recordings}"
    assert main(["inspect", str(run), given]) == 0
    assert main(["lesion", str(run), "prompt", given]) == 0
    assert main(["report", str(run), given, "--samples=4"]) == 0
    assert (run / "report" / "report.html").stat().st_size > 10_000


def test_a_preset_that_does_not_fit_the_recordings_is_refused(recordings, tmp_path, capfd):
    argv = ["train", "--data=nmnist", f"--data-dir={recordings}", f"--out={tmp_path / 'run'}"]
    assert main(argv) == 2
    err = capfd.readouterr().err
    assert "data 'nmnist' has images (2, 8, 8); model 'digits' takes (1, 8, 8)" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("channels", [1, 3])
def test_a_folder_of_images_is_trained_on(tmp_path, channels):
    for name in ("bright", "dark"):
        (tmp_path / "images" / "train" / name).mkdir(parents=True)
        for k in range(20):
            low = 128 if name == "bright" else 0
            pixels = np.random.default_rng(k).integers(low, low + 128, (20, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "images" / "train" / name / f"{k}.png")
    given, out = f"--data-dir={tmp_path / 'images'}", tmp_path / "run"
    model = [f"--input-channels={channels}", "--image-size=32", "--num-classes=2", *TINY]
    assert main(["train", "--data=folder", given, *model, f"--out={out}"]) == 0
    assert main(["evaluate", str(out), given]) == 0
    assert metrics(out / "evaluate")["accuracy"]["test"] == metrics(out)["accuracy"]["test"]
    assert metrics(out)["accuracy"]["test"]["samples"] == 4
