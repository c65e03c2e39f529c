"""The training benchmark on tiny sizes: its file, the surgery, the comparison, the profile."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks import step_profile, train_speed
from benchmarks.neurons import SnnTorchLIF, SpikingJellyLIF
from spikingmoe.config import get_preset
from spikingmoe.layers import LIF
from spikingmoe.model import SpikingTransformer

TINY = ["--preset=digits", "--batch=8", "--time-steps=2", "--threads=1", "--repeats=1"]


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    path = tmp_path_factory.mktemp("speed") / "out.json"
    train_speed.main([*TINY, "--no-compile", "--json", str(path)])
    return json.loads(path.read_text())


def test_every_side_has_its_rows(result):
    assert set(result) == {"machine", "versions", "command", "seeds", "rows", "ratios"}
    steps = [r for r in result["rows"] if r["task"] == "step"]
    assert {(r["side"], r["precision"]) for r in steps} == {
        (s, p) for s in ("ours", "snntorch", "spikingjelly") for p in ("fp32", "bf16")
    }
    for row in steps:
        assert (row["n"], row["batch"], row["time_steps"]) == (1, 8, 2)
        assert row["images_per_second"] == pytest.approx(8000 / row["milliseconds"])
    losses = [r["loss"] for r in steps]
    assert max(losses) / min(losses) < 1.05
    assert min(losses) > 1, "untrained: about the logarithm of 10"
    assert set(result["ratios"]) == {
        f"vs_{n}{p}" for n in ("snntorch", "spikingjelly") for p in ("", "_bf16")
    }


def test_the_profile_adds_up_and_finds_every_group(result):
    for precision in ("fp32", "bf16"):
        rows = [r for r in result["rows"] if r["task"] == "profile" and r["precision"] == precision]
        assert [r["group"] for r in rows] == list(step_profile.GROUPS)
        assert sum(r["share"] for r in rows) == pytest.approx(1)
        assert all(r["share"] > 0 for r in rows)
        assert rows[-1]["share"] < 0.4, "most of the time has a name"


def test_backward_belongs_to_the_group_of_its_forward():
    """A model of one neuron: nothing of its backward pass is left in "other"."""
    model = nn.Sequential(LIF())
    leaf = torch.randn(4, 2000, requires_grad=True)
    weight = torch.ones(4, 2000)
    rows = step_profile.profile_step(
        model, lambda: model(leaf).backward(weight), steps=2, device="cpu"
    )
    shares = {r["group"]: r["share"] for r in rows}
    assert shares["neurons and norm"] > 0.6
    assert shares["convolution"] == shares["matrix products"] == shares["optimiser"] == 0


def model():
    torch.manual_seed(0)
    return SpikingTransformer(replace(get_preset("digits"), time_steps=2)).train()


@pytest.mark.parametrize("kind", [SnnTorchLIF, SpikingJellyLIF])
def test_surgery_reaches_every_neuron_and_keeps_the_weights(kind):
    ours, theirs = model(), model()
    for m in (ours, theirs):
        for block in m.blocks:
            block.attention.log_gain.data += torch.tensor([0.1, -0.2, 0.03, 0.15])
    neurons = sum(isinstance(m, LIF) for m in ours.modules())
    assert train_speed.replace_neurons(theirs, kind) == neurons > 10
    assert not any(isinstance(m, LIF) for m in theirs.modules())
    assert sum(isinstance(m, kind) for m in theirs.modules()) == neurons
    weights = dict(theirs.named_parameters())
    assert all(torch.equal(p, weights[n]) for n, p in ours.named_parameters())
    images = torch.randn(3, 1, 8, 8)
    left, right = ours(images).logits, theirs(images).logits
    assert torch.allclose(left, right, atol=1e-6)  # off the threshold, where SpikingJelly spikes


def test_a_neuron_that_the_others_do_not_build_is_refused():
    other = model()
    other.head_neuron = LIF(membrane_decay=0.25)
    with pytest.raises(ValueError, match=r"neuron 'head_neuron': membrane_decay=0\.25"):
        train_speed.replace_neurons(other, SnnTorchLIF)


def test_another_network_is_not_timed():
    args = train_speed.parse_arguments(TINY)
    sides = train_speed.make_sides({"ours": None, "other": nn.ReLU}, "digits", "fp32", args)
    with pytest.raises(ValueError, match=r"other, fp32: loss .* ours .*; no time is taken"):
        train_speed.check_sides(sides, "fp32")


def test_a_step_trains():
    args = train_speed.parse_arguments(TINY)
    side = train_speed.make_sides({"ours": None}, "digits", "fp32", args)["ours"]
    before = side.loss_and_gradient_norm()[0]
    for _ in range(8):
        side.step()
    assert side.loss_and_gradient_norm()[0] < before


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--batch", "0"], "--batch 0 must be at least 1"),
        (["--time-steps", "0"], "--time-steps 0 must be at least 1"),
        (["--preset", "imagenet-base"], "invalid choice"),
        (["--precision", "fp16"], "invalid choice"),
    ],
)
def test_bad_arguments(argv, words, capsys):
    with pytest.raises(SystemExit) as stop:
        train_speed.parse_arguments(argv)
    assert stop.value.code == 2
    assert words in capsys.readouterr().err
