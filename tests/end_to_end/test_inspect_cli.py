"""`spikingmoe inspect` and `spikingmoe lesion` on a small trained run, and what they refuse."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from small_runs import MODEL, SETTINGS, small_data

from spikingmoe.cli.main import main
from spikingmoe.train.fit import train

DEEP_FILE = "/dev/null/below-a-file"  # a folder that not even root can make


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A mixture, trained until it is better than guessing."""
    out = tmp_path_factory.mktemp("inspect") / "run"
    train(MODEL, replace(SETTINGS, epochs=6), small_data(train=600), out)
    return out


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    """Its dense twin, one epoch."""
    out = tmp_path_factory.mktemp("inspect") / "dense"
    config = replace(MODEL, routing="dense", num_experts=1)
    train(config, replace(SETTINGS, epochs=1), small_data(), out)
    return out


@pytest.fixture(scope="module")
def threshold(tmp_path_factory):
    """A mixture whose experts decide alone, one epoch."""
    out = tmp_path_factory.mktemp("inspect") / "threshold"
    train(replace(MODEL, routing="threshold"), replace(SETTINGS, epochs=1), small_data(), out)
    return out


def metrics(folder):
    return json.loads((Path(folder) / "metrics.json").read_text())


def files_of(folder):
    return sorted(p.name for p in Path(folder).iterdir())


def is_whole_png(path):
    content = Path(path).read_bytes()
    return content.startswith(b"\x89PNG\r\n\x1a\n") and content.rstrip().endswith(b"IEND\xaeB`\x82")


def test_inspect(run, capfd):
    assert main(["inspect", str(run), "--samples=60"]) == 0
    out = run / "inspect"
    names = ["classes.png", "load.png", "metrics.json", "regions.png", "steps.png"]
    assert files_of(out) == names
    assert all(is_whole_png(out / name) for name in names if name.endswith("png"))
    values = metrics(out)
    assert values["command"] == "inspect"
    assert values["samples"] == values["accuracy"]["test"]["samples"] == 60
    (mixture,) = values["mixtures"]
    assert mixture["name"] == "blocks.0.moe"
    assert sum(mixture["load"]) == pytest.approx(1)
    assert [sum(row) for row in mixture["class_shares"]] == pytest.approx([1] * 10)
    assert len(mixture["region_shares"]) == 3
    assert 0 <= mixture["by_class"]["chance_bits"] <= mixture["by_class"]["limit_bits"]
    assert values["firing_rates"]["head_neuron"] > 0
    assert set(values["definitions"]) >= {"load", "by_class", "gate_changes", "dead_experts"}
    text = capfd.readouterr().out
    assert "right on 60 test images" in text
    for word in ("blocks.0.moe.experts.2", "load entropy", "of the class", "dead experts"):
        assert word in text


def test_inspect_of_all_images_agrees_with_evaluate(run, tmp_path):
    assert main(["inspect", str(run), f"--out={tmp_path / 'a'}"]) == 0
    assert main(["evaluate", str(run), f"--out={tmp_path / 'b'}"]) == 0
    read, evaluated = metrics(tmp_path / "a"), metrics(tmp_path / "b")
    assert read["accuracy"]["test"] == evaluated["accuracy"]["test"]
    (load,) = evaluated["experts"]["load"].values()
    assert read["mixtures"][0]["load"] == pytest.approx(load, abs=1e-6)


def test_lesion_of_everything(run, capfd):
    assert main(["lesion", str(run), "--samples=60"]) == 0
    out = run / "lesion"
    assert files_of(out) == ["lesions.png", "metrics.json"]
    assert is_whole_png(out / "lesions.png")
    values = metrics(out)
    assert [one["target"] for one in values["lesions"]] == [
        "prompt",
        *(f"blocks.0.{n}" for n in ("attention", "attention.heads.0", "attention.heads.1", "moe")),
        *(f"blocks.0.moe.experts.{e}" for e in range(3)),
    ]
    before = sum(values["right_before_per_class"])
    assert sum(values["images_per_class"]) == values["samples"] == 60
    assert values["accuracy"]["test"]["torch"] == pytest.approx(before / 60)
    for one in values["lesions"]:
        assert before - one["lost"] + one["gained"] == sum(one["right_per_class"])
        assert one["change"] == pytest.approx((one["gained"] - one["lost"]) / 60)
        assert one["change_95"][0] <= one["change"] <= one["change_95"][1]
        assert one["accuracy_95"][0] <= one["accuracy"] <= one["accuracy_95"][1]
        assert one["p_value"] <= one["q_value"] <= 1
        assert len(one["q_value_per_class"]) == 10
    loads = values["load"]["blocks.0.moe"]
    assert [one["share_of_choices"] for one in values["lesions"][-3:]] == pytest.approx(loads)
    assert values["accuracy"]["test"]["torch"] > 0.2
    assert any(one["answers_changed"] for one in values["lesions"])
    assert all(one["largest_logit_change"] > 0 for one in values["lesions"][:1])
    text = capfd.readouterr().out
    assert "without lesion:" in text
    assert "accuracy per class" in text
    assert "McNemar" in text


def test_lesion_of_some(run, tmp_path):
    """By pattern, the busiest, re-routed, at once; the run itself is untouched."""
    files = {p: p.read_bytes() for p in (run / "checkpoints").iterdir()}
    options = ["--samples=40", f"--out={tmp_path}"]
    names = ["blocks.*.moe.experts.busiest", "prompt"]
    assert main(["lesion", str(run), *names, *options, "--reroute"]) == 0
    values = metrics(tmp_path)
    names = [one["target"] for one in values["lesions"]]
    busiest = max(range(3), key=lambda e: values["load"]["blocks.0.moe"][e])
    assert names == [f"blocks.0.moe.experts.{busiest}", "prompt"]
    assert values["rerouted"] is True
    names = ["prompt", "blocks.0.attention"]
    assert main(["lesion", str(run), *names, *options, "--together"]) == 0
    assert [(o["target"], o["kind"]) for o in metrics(tmp_path)["lesions"]] == [
        ("prompt + blocks.0.attention", "several")
    ]
    assert {p: p.read_bytes() for p in (run / "checkpoints").iterdir()} == files


def test_lesions_of_a_dense_run_are_heads_and_branches(dense, tmp_path):
    assert main(["lesion", str(dense), "--samples=20", f"--out={tmp_path}"]) == 0
    values = metrics(tmp_path)
    assert [one["kind"] for one in values["lesions"]] == ["attention", "head", "head", "dense MLP"]
    assert values["load"] == {}


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["inspect"], ["required: run"]),
        (["inspect", "no-such-run"], ["no-such-run: no such run"]),
        (["inspect", "{dense}"], ["has no mixture to read (routing='dense')"]),
        (["inspect", "{run}", "--samples=360"], ["samples=360", "359 test images, use 1 to 359"]),
        (["inspect", "{run}", "--samples=0"], ["samples=0", "use 1 to 359"]),
        (["inspect", "{run}", "--samples=x"], ["samples"]),
        (["inspect", "{run}", "--data=digts"], ["unknown data set 'digts'", "'digits'?"]),
        (["inspect", "{run}", "--out", DEEP_FILE], [DEEP_FILE]),
        (["lesion"], ["required: run"]),
        (["lesion", "no-such-run"], ["no-such-run: no such run"]),
        (
            ["lesion", "{run}", "blocks.0.moe.expert.1"],
            ["unknown lesion target 'blocks.0.moe.expert.1'", "'blocks.0.moe.experts.1'?",
             "blocks.0.moe.experts.0..2"],
        ),
        (["lesion", "{run}", "prompt", "blocks.7.moe"], ["unknown lesion target 'blocks.7.moe'"]),
        (["lesion", "{dense}", "prompt"], ["unknown lesion target 'prompt'", "blocks.0.mlp"]),
        (["lesion", "{dense}", "blocks.0.moe.experts.0"], ["unknown lesion target"]),
        (["lesion", "{run}", "prompt", "--samples=360"], ["samples=360", "use 1 to 359"]),
        (["lesion", "{run}", "prompt", "--out", DEEP_FILE], [DEEP_FILE]),
        (["lesion", "{run}", "--rerote"], ["unknown option --rerote; did you mean --reroute?"]),
        (
            ["lesion", "{run}", "--samples=20", "prompt"],
            ["unrecognized arguments: prompt; names stand right after RUN, before the options"],
        ),
        (
            ["lesion", "{run}", "blocks.0.moe.experts.[12]", "--together", "--reroute",
             "--samples=360"],
            ["samples=360"],
        ),
        (
            ["lesion", "{threshold}", "blocks.0.moe.experts.1", "--reroute"],
            ["lesion of blocks.0.moe: each expert decides alone"],
        ),
    ],
)  # fmt: skip
def test_bad_input(argv, parts, run, dense, threshold, capfd, tmp_path, monkeypatch):
    """One line, exit code 2, nothing written: neither here nor in the run."""
    monkeypatch.chdir(tmp_path)
    folders = {"run": run, "dense": dense, "threshold": threshold}
    before = {p for folder in folders.values() for p in folder.rglob("*")}
    capfd.readouterr()
    assert main([a.format(**folders) for a in argv]) == 2
    err = capfd.readouterr().err
    assert err.count("\n") == 1, err
    assert err.startswith("spikingmoe: ")
    for part in parts:
        assert part in err
    assert list(tmp_path.iterdir()) == []
    assert {p for folder in folders.values() for p in folder.rglob("*")} == before


@pytest.mark.parametrize("command", ["inspect", "lesion"])
def test_an_interrupt_leaves_no_half_written_file(command, run, tmp_path, monkeypatch, capfd):
    """Stopped while it computes: 130, one line, an empty folder."""

    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(f"spikingmoe.cli.{command}.read_mixture", interrupted)
    capfd.readouterr()
    assert main([command, str(run), "--samples=20", f"--out={tmp_path}"]) == 130
    assert capfd.readouterr().err == "spikingmoe: interrupted\n"
    assert list(tmp_path.iterdir()) == []
