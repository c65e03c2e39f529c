"""`bundle` writes a checkpoint that every command takes by name; `predict` needs no data set."""

import hashlib
import json
import re
import shlex

import numpy as np
import pytest
import torch
from PIL import Image
from small_runs import tiny_options

from spikingmoe.cli import bundle
from spikingmoe.cli.command_line import parse
from spikingmoe.cli.main import main
from spikingmoe.cli.train import configurations
from spikingmoe.data import load_data
from spikingmoe.train import bundled
from spikingmoe.train.checkpoint import ABOUT, ArchiveIO, load_run, read_checkpoint


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A tiny run with its energy measured, as a card needs it."""
    out = tmp_path_factory.mktemp("predict") / "run"
    options = tiny_options(epochs=2, samples=512)
    assert main(["train", *options, "--max-shift=2", "--flip=true", f"--out={out}"]) == 0
    assert main(["energy", str(out), "--twins=false", "--images=8"]) == 0
    return out


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    """A folder of bundled checkpoints with one in it."""
    out = tmp_path_factory.mktemp("checkpoints")
    assert main(["bundle", str(run), "--name=tiny", f"--out={out}"]) == 0
    return out


@pytest.fixture
def installed(folder, monkeypatch, tmp_path):
    """The package finds that folder; the working directory is empty."""
    monkeypatch.setattr(bundled, "FOLDER", folder)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """The first test digits as PNG files of their own size."""
    out = tmp_path_factory.mktemp("images")
    data = load_data("digits")
    pixels = (data.normalisation.pixels(data.test.images[:6]) * 255).round().byte()
    for i, image in enumerate(pixels):
        Image.fromarray(image[0].numpy()).save(out / f"{i}.png")
    return [str(out / f"{i}.png") for i in range(6)]


def refused(argv, capfd, *parts):
    capfd.readouterr()
    assert main([str(a) for a in argv]) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1, err
    for part in parts:
        assert part in err, err


def metrics(path):
    return json.loads((path / "metrics.json").read_text())


# ---- predict


def test_predictions_are_those_of_the_model(run, images, tmp_path, capfd):
    assert main(["predict", str(run), *images, "--top=3", f"--out={tmp_path}"]) == 0
    table = capfd.readouterr().out
    found = metrics(tmp_path)["images"]
    data, trained = load_data("digits"), load_run(run)
    pixels = torch.stack([torch.from_numpy(np.array(Image.open(p)))[None] for p in images])
    with torch.no_grad():
        logits = trained.model(data.normalisation.images(pixels)).logits
    expected = logits.double().softmax(1)
    assert float(expected.max()) > 0.11, "a model that knows nothing shows nothing"
    for image, path, probabilities in zip(found, images, expected, strict=True):
        assert image["file"] == path
        ranked = [image["top"][i]["probability"] for i in range(3)]
        assert ranked == pytest.approx(probabilities.sort(descending=True)[0][:3].tolist())
        assert ranked == sorted(ranked, reverse=True)
        assert image["probability"] == ranked[0]
        assert image["class"] == image["top"][0]["class"] == str(int(probabilities.argmax()))
    assert metrics(tmp_path)["command"] == "predict"
    for column in ("file", "class", "probability", "runner-up"):
        assert column in table


def test_without_out_nothing_is_written(run, images, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    before = sorted(run.rglob("*"))
    assert main(["predict", str(run), images[0], "--top=1"]) == 0
    assert "runner-up" not in capfd.readouterr().out
    assert sorted(run.rglob("*")) == before
    assert list(tmp_path.iterdir()) == []


def test_bad_input_for_predict(run, images, tmp_path, capfd):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    refused(["predict", run, images[0], broken], capfd, "broken.png", "use")
    refused(["predict", run, "no.png"], capfd, "no.png: no such file")
    refused(["predict", run, images[0], "--top=0"], capfd, "top=0", "use 1 to 10")
    refused(["predict", run, images[0], "--top=11"], capfd, "top=11", "use 1 to 10")
    refused(["predict", run], capfd, "images")
    split = ["predict", run, images[0], "--top=1", images[1]]
    refused(split, capfd, "names stand right after RUN, before the options")
    refused(["predict", "nowhere", images[0]], capfd, "nowhere: no such run")


def test_checkpoints_of_earlier_versions_are_to_be_trained_again(run, images, tmp_path, capfd):
    content = read_checkpoint(load_run(run).path)
    for name in ("classes", "normalisation"):
        del content[ABOUT][name]
    old = tmp_path / "old.safetensors"
    ArchiveIO().save_checkpoint(content, old)
    assert load_run(old).data_notes is None
    refused(["predict", old, images[0]], capfd, "does not say its classes", "train it again")
    refused(["bundle", old, "--name=x"], capfd, "does not say its classes", "train it again")


# ---- bundle


def test_a_bundled_checkpoint_has_the_weights_and_nothing_of_training(run, folder):
    trained, stripped = load_run(run), load_run(folder / "tiny.safetensors")
    content = read_checkpoint(folder / "tiny.safetensors")
    assert set(content) == {"epoch", "state_dict", ABOUT}
    assert content[ABOUT] == read_checkpoint(trained.path)[ABOUT]
    state = stripped.model.state_dict()
    for name, value in trained.model.state_dict().items():
        assert torch.equal(value, state[name]), name
        assert value.dtype == state[name].dtype
    assert stripped.model_config == trained.model_config
    assert (stripped.epoch, stripped.history) == (trained.epoch, trained.history)
    assert stripped.data_notes == trained.data_notes
    assert (folder / "tiny.safetensors").stat().st_size < trained.path.stat().st_size / 2


def test_the_card_says_what_it_is(run, folder):
    card, values = (folder / "tiny.md").read_text(), metrics(run / "energy")
    test = values["accuracy"]["test"]
    digest = hashlib.sha256((folder / "tiny.safetensors").read_bytes()).hexdigest()
    for words in (
        f"| test accuracy | {100 * test['torch']:.2f} % (n = 359, last epoch) |",
        f"{values['synops_per_sample']['moe']:,.0f} (counted on: reference, floating point, 8 test",
        f"| SHA-256 | `{digest}` |",
        "| seed | 0 |",
        "| data | digits, images 1x8x8 |",
        "spikingmoe predict tiny IMAGE...",
    ):
        assert words in card


def test_the_cards_command_trains_the_same(run, folder):
    card = (folder / "tiny.md").read_text()
    (line,) = re.findall(r"^    (spikingmoe train .*)$", card, re.MULTILINE)
    command, args = parse(shlex.split(line)[1:])
    assert command == "train"
    config, recipe = configurations(args, args.preset, args.data)
    trained = load_run(run)
    assert (config, recipe) == (trained.model_config, trained.train_config)


@pytest.mark.parametrize("name", bundled.bundled_names())
def test_what_is_shipped_is_what_its_card_says(name):
    """The real files: they load, the card is theirs, and its command makes such a network."""
    trained, card = load_run(name), (bundled.FOLDER / f"{name}.md").read_text()
    parameters = sum(p.numel() for p in trained.model.parameters())
    assert f"| parameters | {parameters:,} |" in card
    assert hashlib.sha256(trained.path.read_bytes()).hexdigest() in card
    assert trained.path.stat().st_size < 4 * 2**20
    (line,) = re.findall(r"^    (spikingmoe train .*)$", card, re.MULTILINE)
    _, args = parse(shlex.split(line)[1:])
    config, recipe = configurations(args, args.preset, args.data)
    assert (config, recipe) == (trained.model_config, trained.train_config)


def test_every_command_takes_the_name(installed, images, capfd):
    assert main(["evaluate", "tiny"]) == 0
    refused(["simulate", "tiny"], capfd, "no program; use `spikingmoe lower tiny -o tiny.program`")
    assert main(["lower", "tiny", "-o", "tiny.program"]) == 0
    assert main(["simulate", "tiny.program", "--backend=reference", "--samples=4"]) == 0
    assert main(["energy", "tiny", "--twins=false", "--images=4"]) == 0
    assert main(["inspect", "tiny", "--samples=20"]) == 0
    assert main(["report", "tiny", "--samples=2"]) == 0
    assert main(["predict", "tiny", images[0]]) == 0
    made = {p.name for p in (installed / "tiny").iterdir()}
    assert made == {"evaluate", "energy", "inspect", "report"}
    assert {p.name for p in bundled.FOLDER.iterdir()} == {"tiny.md", "tiny.safetensors"}
    assert metrics(installed / "tiny/report")["synops_per_sample"], "what energy measured is used"


@pytest.mark.lava
def test_verify_takes_the_name(installed):
    assert main(["verify", "tiny", "--twins=false", "--images=4", "--samples=2"]) == 0
    found = metrics(installed / "tiny/verify")["verify"]
    assert found["same"] is True
    assert found["float"]["pair"] == "reference / lava"
    assert found["stock_fixed"]["pair"] == "reference / lava-stock"
    assert found["stock_fixed"]["compared"] > 0
    assert found["stock_fixed"]["samples"] == min(4, found["fixed"]["samples"])
    assert {p.name for p in bundled.FOLDER.iterdir()} == {"tiny.md", "tiny.safetensors"}


def test_a_run_of_that_name_in_the_working_directory_wins(installed, run):
    (installed / "tiny").symlink_to(run)
    assert load_run("tiny").path.parent.name == "checkpoints"


def test_unknown_names_list_what_is_bundled(installed, capfd):
    refused(["evaluate", "tny"], capfd, "tny: no such run", "bundled checkpoint (there are: tiny)")


def test_what_cannot_be_bundled(run, folder, tmp_path, capfd, monkeypatch):
    into = f"--out={tmp_path}"
    for name in ("A", "../x", "", ".x", "a b"):
        refused(["bundle", run, f"--name={name}", into], capfd, "use small letters, digits")
    refused(["bundle", run], capfd, "required: name")
    refused(["bundle", run, "--name=tiny", f"--out={folder}"], capfd, "tiny.safetensors: is there")
    monkeypatch.setattr(bundle, "MOST_BYTES", 1_000)
    refused(["bundle", run, "--name=x", into], capfd, "MB of weights; less than 0 MB can be")
    assert list(tmp_path.iterdir()) == []


def test_a_card_needs_measurements(run, tmp_path, capfd):
    alone = tmp_path / "alone"
    (alone / "checkpoints").mkdir(parents=True)
    path = load_run(run).path
    (alone / "checkpoints" / path.name).write_bytes(path.read_bytes())
    argv = ["bundle", alone, "--name=x", f"--out={tmp_path}"]
    refused(argv, capfd, "are not known for the card", f"`spikingmoe energy {alone} --twins false`")
    (alone / "metrics.json").write_text((run / "metrics.json").read_text())
    refused(argv, capfd, "are not known for the card")  # the accuracy alone is not enough
