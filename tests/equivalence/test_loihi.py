"""The Loihi backend: what it refuses, and, against a stand-in for Intel's package, what it calls."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_loihi import FakeLoihi
from tiny_models import settled_model, tiny_config, tiny_images

from hardware.errors import BackendError
from hardware.ir import LIF, Dense, Input, Readout, Relay, SpikeGraph, one_to_one
from hardware.ir.stream import stream_steps
from hardware.loihi.fit import estimate_fit
from hardware.lowering import lower
from hardware.passes.pipeline import legalise_for_stock_lava, prepare
from hardware.simulate import simulate
from hardware.verify import compare_traces
from spikingmoe import layers
from spikingmoe.cli.main import main
from spikingmoe.sequential import SpikingSequential


def small_graph(threshold: np.ndarray) -> SpikeGraph:
    """Two neurons behind a graded input, a relay that sums them for the readout, and a gate."""
    populations = (
        Input(name="in", shape=(3,), scale=127.0),
        LIF(name="lif", shape=(2,), threshold=threshold, bias=np.asarray(0), scale=100.0),
        LIF(
            name="gate",
            shape=(1,),
            membrane_decay=0.0,
            threshold=np.asarray(250),
            bias=np.asarray(0),
        ),
        Relay(name="sum", shape=(2,), scale=2.0),
        Readout(name="out", shape=(2,), bias=np.asarray(0), scale=2.0),
    )
    synapses = (
        Dense(source="in", target="lif", weight=np.array([[2, -4, 6], [-2, 4, 6]]), exponent=1),
        Dense(source="in", target="gate", weight=np.array([[-254, 254, 0]])),
        replace(one_to_one("lif", "sum", 2), weight=np.array([2, -2])),
        replace(one_to_one("sum", "out", 2), weight=np.array([2, 2]), exponent=-1),
    )
    return SpikeGraph(
        populations={p.name: p for p in populations},
        synapses=synapses,
        time_steps=2,
        arithmetic="fixed",
    )


SMALL, INPUTS = small_graph(np.asarray(200)), np.eye(3)
#: The gate gets -254 * 127, and at the next step 4 more than its threshold: a decay of 4095 keeps -7.
HARD_TO_FORGET = np.array([[[1.0, 0, 0], [0, 1 / 127, 0]], [[0, 1, 1], [1, 0, 1]]])


@pytest.mark.lava
def test_the_network_for_the_chip_sends_the_references_spikes(tmp_path, monkeypatch) -> None:
    """Decays within their field, memory cut at each step, sums in GradedVec: the same integers."""
    fake = FakeLoihi(tmp_path, monkeypatch)
    config = tiny_config(hold="window", num_experts=2, prompt="none", attention="none")
    graph = prepare(lower(settled_model(config)), "fixed")
    images = tiny_images(config, 3)
    expected = simulate(graph, images)
    found = simulate(graph, images, backend="loihi")
    comparison = compare_traces(graph, expected, found)
    assert comparison.same, comparison.first
    assert comparison.not_compared == ()
    assert (expected.spikes["head.readout"] < 0).any()  # the sign comes back with the 24 bits
    assert expected.spikes["blocks.0.moe.latch"].any()
    assert found.meta["backend"] == "loihi"
    assert found.meta["cores"] >= 1
    assert found.meta["warnings"] == []
    check_what_the_chip_got(fake, legalise_for_stock_lava(graph), stream_steps(graph, 3))


def check_what_the_chip_got(fake: FakeLoihi, graph: SpikeGraph, steps: int) -> None:
    first = [line for line in fake.record if line["step"] == 1]
    models = Counter(line["model"] for line in first)
    lifs, inputs = graph.of_kind(LIF), graph.of_kind(Input)
    assert models["NcL2ModelLifReset"] == len(lifs)
    assert models["NcModelGradedVec"] == len(graph.of_kind(Relay)) + 1
    assert models["NcModelDense"] + models["NcModelSparse"] == len(graph.synapses)
    assert models["CPyToNx"] == len(inputs)
    variables = [line["variables"] for line in first if "variables" in line]
    assert all(kind in "iu" for seen in variables for kind, _, _ in seen.values())

    weights = [
        (float(matrix.min()), float(matrix.max()), float(synapse.exponent))
        for synapse in graph.synapses
        for matrix in [graph.matrix(synapse).toarray()]
    ]
    got = [(*seen["weights"][1:], seen["weight_exp"][1]) for seen in variables if "weights" in seen]
    assert sorted(got) == sorted(weights)
    thresholds = [float(np.max(lif.threshold)) for lif in lifs]
    assert sorted(seen["vth"][2] for seen in variables if "bias_exp" in seen) == sorted(thresholds)
    neurons = [line for line in first if line["model"] == "NcL2ModelLifReset"]
    for line in neurons:
        seen, interval = line["variables"], line["params"]["reset_interval"]
        assert seen["du"][1:] == [4095, 4095]
        assert seen["bias_exp"][1:] == [6, 6]
        assert (interval, seen["dv"][1]) in ((1, 4095), (graph.time_steps, 2048))
    forgetful = sum(lif.membrane_decay == 0 for lif in lifs)
    assert sum(line["params"]["reset_interval"] == 1 for line in neurons) == forgetful > 0
    assert neurons[0]["board"] == {"SLURM": "1", "LOIHI_GEN": "N3B3"}

    adapters = [line for line in fake.record if line["model"] in ("CPyToNx", "CNxToPy")]
    assert all(line["kind"] == "i" for line in adapters)
    assert {line["step"] for line in adapters} == set(range(1, steps + 1))
    widths = {line["bits"] for line in adapters if line["model"] == "CPyToNx"}
    assert widths == {0, 24}  # clocks and constants are spikes, the image is graded


@pytest.mark.lava
def test_only_what_is_recorded_is_read_from_the_chip(tmp_path, monkeypatch) -> None:
    fake = FakeLoihi(tmp_path, monkeypatch)
    found = simulate(SMALL, HARD_TO_FORGET, backend="loihi", record=["lif", "gate"])
    expected = simulate(SMALL, HARD_TO_FORGET)
    assert set(found.spikes) == {"lif", "gate"}
    assert expected.spikes["lif"].any()
    assert expected.spikes["gate"].tolist() == [[[False], [True]], [[True], [False]]]
    for name in found.spikes:
        np.testing.assert_array_equal(found.spikes[name], expected.spikes[name])
    np.testing.assert_array_equal(found.logits, expected.logits)
    readers = [x for x in fake.record if x["model"] == "CNxToPy" and x["step"] == 1]
    assert sorted(line["neurons"] for line in readers) == [1, 2, 2]  # gate, lif, readout


@pytest.mark.lava
def test_the_command_line_reads_the_logits_alone(tmp_path, monkeypatch, capsys) -> None:
    fake = FakeLoihi(tmp_path, monkeypatch)
    torch.manual_seed(0)
    stack = [layers.Convolution(1, 2, stride=4), layers.LIF(), layers.Flatten()]
    stack.append(layers.Readout(8, 10))
    model = SpikingSequential(stack, input_shape=(1, 8, 8), time_steps=2).eval()
    program = tmp_path / "small.program"
    lower(model).save(str(program))
    options = ["--data=digits", "--samples=2", f"--out={tmp_path}"]
    argv = ["simulate", str(program), *options, "--arithmetic=fixed"]
    assert main([*argv, "--backend=loihi"]) == 0
    assert "cores" in capsys.readouterr().out
    found = json.loads((tmp_path / "metrics.json").read_text())
    readers = [x for x in fake.record if x["model"] == "CNxToPy" and x["step"] == 1]
    assert [(line["neurons"], line["bits"]) for line in readers] == [(10, 24)]
    assert main([*argv, "--backend=reference"]) == 0
    expected = json.loads((tmp_path / "metrics.json").read_text())
    assert found["predictions"] == expected["predictions"]
    assert found["meta"]["cores"] == 1


@pytest.mark.lava
def test_a_process_without_a_model_for_the_chip_does_not_run_on_the_cpu(
    tmp_path, monkeypatch
) -> None:
    FakeLoihi(tmp_path, monkeypatch, without=("lava/proc/graded/ncmodels.py",))
    message = "Lava process '(sum|out)': .* no model of GradedVec for the chip, only PyGradedVecModelFixed"
    with pytest.raises(BackendError, match=message):
        simulate(SMALL, INPUTS, backend="loihi")


@pytest.mark.lava
def test_without_a_board_it_says_where_one_may_be(tmp_path, monkeypatch) -> None:
    FakeLoihi(tmp_path, monkeypatch)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("NXSDKHOST", raising=False)
    with pytest.raises(BackendError, match=r"no Loihi 2 board.*set NXSDKHOST to the address"):
        simulate(SMALL, INPUTS, backend="loihi")


def test_without_intels_package_it_says_who_gives_it() -> None:
    with pytest.raises(BackendError, match=r"lava-loihi.*Intel Neuromorphic Research Community"):
        simulate(SMALL, INPUTS, backend="loihi")


def test_floating_point_is_refused() -> None:
    graph = lower(settled_model(tiny_config()))
    with pytest.raises(BackendError, match="use arithmetic='fixed'"):
        simulate(graph, tiny_images(tiny_config(), 1), backend="loihi")


def test_unequal_thresholds_are_refused() -> None:
    graph = small_graph(np.array([200, 300]))
    with pytest.raises(BackendError, match="population 'lif' has 2 different thresholds"):
        simulate(graph, INPUTS, backend="loihi")


def test_graded_messages_are_refused_on_other_chips(monkeypatch) -> None:
    monkeypatch.setenv("LOIHI_GEN", "N2A2")
    with pytest.raises(BackendError, match=r"N2A2 is no Loihi 2.*2 populations \('in' first\)"):
        simulate(SMALL, INPUTS, backend="loihi")


def test_what_may_not_fit_is_told_and_not_refused() -> None:
    assert estimate_fit(SMALL).warnings == []
    size = 600_000
    populations = (
        Input(name="in", shape=(1,), kind="binary"),
        LIF(name="lif", shape=(size,), threshold=np.asarray(1), bias=np.asarray(0)),
        Readout(name="out", shape=(1,), bias=np.asarray(0)),
    )
    graph = SpikeGraph(
        populations={p.name: p for p in populations},
        synapses=(
            Dense(source="in", target="lif", weight=np.full((size, 1), 2)),
            Dense(source="lif", target="out", weight=np.full((1, size), 2)),
        ),
        time_steps=1,
        arithmetic="fixed",
    )
    fit = estimate_fit(graph)
    assert fit.chips == 2
    assert any(f"takes about {fit.cores} cores" in line for line in fit.warnings)
    assert any("binary spikes only" in line for line in estimate_fit(SMALL, "loihi1").warnings)
