"""The training benchmark on tiny sizes: its file, the surgery, the comparison, the profile."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks import step_profile, train_speed
from benchmarks.neurons import SnnTorchLIF, SpikingJellyLIF
from spikingmoe.config import get_preset
from spikingmoe.kernels import can_fuse
from spikingmoe.layers import LIF, fire, neuron
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
        f"vs_{n}{p}" for n in ("snntorch", "spikingjelly_eager") for p in ("", "_bf16")
    }


def test_the_profile_adds_up_and_finds_every_group(result):
    for precision in ("fp32", "bf16"):
        rows = [r for r in result["rows"] if r["task"] == "profile" and r["precision"] == precision]
        assert [r["group"] for r in rows] == list(step_profile.GROUPS)
        assert sum(r["share"] for r in rows) == pytest.approx(1)
        assert all(r["share"] > 0 for r in rows)
        assert rows[-1]["share"] < 0.4, "most of the time has a name"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["fused", "plain"])
def test_backward_belongs_to_the_group_of_its_forward(dtype):
    """A model of one neuron: next to nothing of its backward pass is left in "other"."""
    model = nn.Sequential(LIF())
    leaf = torch.randn(4, 300_000, requires_grad=True, dtype=dtype)
    weight = torch.ones_like(leaf)
    step = lambda: model(leaf).backward(weight)  # noqa: E731
    found = []
    for _ in range(3):  # a busy machine may stop one of them in the middle of nothing
        rows = step_profile.profile_step(model, step, steps=3, device="cpu")
        found.append({r["group"]: r["share"] for r in rows})
    assert min(shares["other"] for shares in found) < 0.3
    for group in ("convolution", "matrix products", "optimiser"):
        assert all(shares[group] == 0 for shares in found)


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


@pytest.mark.skipif(not can_fuse(torch.ones(1)), reason="no compiler for the fused kernels")
def test_the_others_have_none_of_our_kernels_and_the_profile_has_them(monkeypatch):
    args = train_speed.parse_arguments(TINY)
    neurons = {"ours": None, "snntorch": SnnTorchLIF}
    sides = train_speed.make_sides(neurons, "digits", "fp32", args)
    called = []

    def counted(name, call):
        def count(*args, **kwargs):
            called.append(name)
            return call(*args, **kwargs)

        return count

    for name in ("fused_norm", "fused_norm_lif"):
        monkeypatch.setattr(fire, name, counted(name, getattr(fire, name)))
    monkeypatch.setattr(neuron, "fused_lif", counted("fused_lif", neuron.fused_lif))
    sides["snntorch"].step()
    assert called == []
    sides["ours"].step()
    usual = sorted(called)
    assert set(usual) == {"fused_norm", "fused_norm_lif", "fused_lif"}
    called.clear()
    ours = sides["ours"]
    step_profile.profile_step(ours.model, ours.step, steps=1, device="cpu")
    assert sorted(called) == sorted(2 * usual), "once to warm up, once profiled"
    called.clear()
    ours.step()
    assert sorted(called) == usual, "nothing is left behind"


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
