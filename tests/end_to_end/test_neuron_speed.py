"""The neuron benchmark on tiny sizes: its file, its ratios, and that it compares before it times."""

import json

import pytest
import torch
from torch import nn

from benchmarks import neuron_speed, neurons
from benchmarks.harness import paired_ratio
from spikingmoe.layers import LIF

TINY = ["--threads=1", "--repeats=1", "--no-compile"]


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    path = tmp_path_factory.mktemp("speed") / "out.json"
    neuron_speed.main([*TINY, "--sizes", "4x2x3x5", "6x2x7", "--json", str(path)])
    return json.loads(path.read_text())


def test_every_side_has_its_rows(result):
    assert set(result) == {"machine", "versions", "command", "seeds", "rows", "ratios"}
    assert "spikingjelly" in result["versions"]
    sides = {"ours", "ours, detached reset", "snntorch", "spikingjelly", "copy"}
    for size, compared in (("4x2x3x5", 120), ("6x2x7", 84)):
        for dtype in ("fp32", "bf16"):
            rows = [r for r in result["rows"] if (r["size"], r["dtype"]) == (size, dtype)]
            assert {(r["side"], r["measured"]) for r in rows} == {
                (s, p) for s in sides for p in ("forward", "backward", "both")
            }
            assert all(r["n"] == 1 and r["milliseconds"] > 0 for r in rows)
            checked = [r for r in rows if r["side"] != "copy"]
            steps = 4 if dtype == "bf16" else int(size[0])
            spikes = compared // int(size[0]) * steps
            assert all(r["spikes_differing"] == 0 for r in checked)
            assert all(r["spikes_compared"] == spikes for r in checked)
    jelly = next(r for r in result["rows"] if r["side"] == "spikingjelly")
    assert jelly["implementation"] == "torch-reference"


def test_ratios_are_those_of_the_first_size(result):
    names = {
        f"vs_{n}{p}{d}"
        for n in ("snntorch", "spikingjelly_eager", "copy")
        for p in ("", "_forward")
        for d in ("", "_bf16")
    }
    assert set(result["ratios"]) == names
    row = next(
        r
        for r in result["rows"]
        if (r["size"], r["dtype"], r["measured"], r["side"])
        == ("4x2x3x5", "bf16", "forward", "snntorch")
    )
    assert result["ratios"]["vs_snntorch_forward_bf16"] == row["ours_is_faster"]


def test_the_fastest_form_of_a_library_counts():
    report = neuron_speed.Report(seeds=[0])
    for side, faster in (("spikingjelly", 5.0), ("spikingjelly, compiled", 0.5), ("copy", 0.1)):
        report.add(size="4x2", dtype="fp32", measured="both", side=side, ours_is_faster=faster, n=1)
    neuron_speed.add_ratios(report, "4x2", ["fp32"])
    expected = {"vs_spikingjelly": 0.5, "vs_spikingjelly_eager": 5.0, "vs_copy": 0.1}
    assert report.ratios == expected


@pytest.mark.slow
def test_the_compiled_form_is_timed_too(tmp_path):
    path = tmp_path / "out.json"
    argv = ["--threads=1", "--repeats=2", "--sizes", "4x2x3", "--dtypes", "fp32", "--json"]
    neuron_speed.main([*argv, str(path)])
    result = json.loads(path.read_text())
    assert {"vs_spikingjelly", "vs_spikingjelly_eager"} <= set(result["ratios"])
    rows = [r for r in result["rows"] if r["side"] == "spikingjelly, compiled"]
    assert [r["measured"] for r in rows] == ["forward", "backward", "both"]
    assert all(r["spikes_differing"] == 0 for r in rows)


class Subtracting(nn.Module):
    """A neuron that resets by subtraction."""

    def forward(self, current):
        v, spikes = torch.zeros_like(current[0]), []
        for current_t in current:
            v = v / 2 + current_t
            spikes.append((v > 1).float() + 0 * v)
            v = v - spikes[-1]
        return torch.stack(spikes)


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_another_neuron_is_not_timed(dtype):
    args = neuron_speed.parse_arguments(TINY)
    sides = {"ours": LIF(), "other": Subtracting()}
    with pytest.raises(ValueError, match=r"other, .* spikes differ from ours.*no time is taken"):
        neuron_speed.check_sides(sides, (4, 8, 50), dtype, args)


def test_another_surrogate_is_not_timed():
    args = neuron_speed.parse_arguments(TINY)
    sides = {"ours": LIF(), "other": LIF(surrogate="fast_sigmoid")}
    with pytest.raises(
        ValueError, match=r"other, fp32, .* 0 spikes differ from ours, gradients by"
    ):
        neuron_speed.check_sides(sides, (4, 8, 50), "fp32", args)


def test_without_spikingjelly_there_is_a_line_and_no_row(monkeypatch, capsys, tmp_path):
    def absent(module):
        raise ImportError(f"spikingjelly is left out: no {module}")

    monkeypatch.setattr(neurons, "import_spikingjelly", absent)
    path = tmp_path / "out.json"
    neuron_speed.main([*TINY, "--sizes", "4x2x3", "--dtypes", "fp32", "--json", str(path)])
    assert "spikingjelly is left out" in capsys.readouterr().out
    result = json.loads(path.read_text())
    assert "vs_spikingjelly" not in result["ratios"]
    assert "vs_snntorch" in result["ratios"]
    assert "spikingjelly" not in result["versions"]


def test_exact_currents_never_meet_the_threshold_and_are_exact_in_bfloat16():
    currents = neurons.exact_currents((4, 5000), torch.Generator().manual_seed(0))
    v = torch.zeros(5000, dtype=torch.float64)
    spikes = 0
    for current in currents.double():
        u = v / 2 + current
        assert not (u == 1).any()
        assert torch.equal(u.bfloat16().double(), u)
        v = u * (u <= 1)
        spikes += int((u > 1).sum())
    assert 1000 < spikes < 10_000


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--threads", "0"], "--threads 0 must be at least 1"),
        (["--sizes", "4xB"], "--sizes 4xB: use whole numbers"),
        (["--sizes", "4"], "--sizes 4: use T and B at least"),
        (["--dtypes", "fp8"], "invalid choice"),
    ],
)
def test_bad_arguments(argv, words, capsys):
    with pytest.raises(SystemExit) as stop:
        neuron_speed.parse_arguments(argv)
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(capsys):
    with pytest.raises(SystemExit):
        neuron_speed.parse_arguments(["--device", "cuda"])
    assert "torch finds no GPU here" in capsys.readouterr().err


def test_paired_ratio_is_per_round():
    assert paired_ratio([1.0, 20.0, 3.0], [1.0, 10.0, 1.0]) == 2.0
