"""The Lava benchmark on a tiny network: its file, its ratios, and that it compares before it times.

The runs on Lava are stood in for by the reference: which spikes Lava sends is tested elsewhere.
"""

import json

import numpy as np
import pytest
from tiny_models import settled_model, tiny_config, tiny_images

from benchmarks import lava_growth, lava_speed
from benchmarks.lava_block import cut_out
from hardware.ir import run_reference
from hardware.ir.stream import stream_steps
from hardware.lowering import lower
from hardware.passes.pipeline import prepare
from hardware.simulate import to_inputs
from hardware.trace import SpikeTrace

TINY = ["--network=tiny", "--samples=2", "--images=3", "--repeats=2"]
#: Milliseconds of a step that the stand-in tells.
STEP_MS = {"fused": 2.0, "nested": 90.0, "stock": 100.0}


def pretend(graph, inputs, *, record=None, settings=None):
    trace = run_reference(graph, inputs, record=record)
    fast = settings.network == "stock" and settings.stock_models == "fast"
    ms = 20.0 if fast else STEP_MS[settings.network] * (2 if settings.at_once == 1 else 1)
    trace.meta.update(
        backend="lava",
        step_ms=ms,
        step_cpu_ms=2 * ms,
        processes=2,
        hardware_steps=stream_steps(graph, len(inputs)),
    )
    return trace


@pytest.fixture
def tiny(monkeypatch):
    model, images = settled_model(tiny_config()), tiny_images(tiny_config(), 3)
    monkeypatch.setattr(lava_speed, "run_lava", pretend)
    monkeypatch.setattr(lava_speed, "network_of", lambda args: (model, images, "a tiny one"))
    monkeypatch.setattr(lava_speed, "digits_model", lambda args: (model, images[:2]))


def test_rows_and_ratios(tiny, tmp_path, monkeypatch, capsys):
    smallest = {"BLOCKS": (1,), "EXPERTS": (2,), "SIZES": (8,), "THRESHOLDS": (1.0, 1000.0)}
    for name, value in {**smallest, "SETTLING": 2, "SAMPLES": 1}.items():
        monkeypatch.setattr(lava_growth, name, value)
    path = tmp_path / "out.json"
    lava_speed.main([*TINY, "--json", str(path)])
    result = json.loads(path.read_text())
    assert set(result) == {"machine", "versions", "command", "seeds", "rows", "ratios"}
    assert "lava-nc" in result["versions"]
    rows = [r for r in result["rows"] if r["measured"] == "step"]
    assert {(r["graph"], r["arithmetic"], r["side"]) for r in rows} == {
        (graph, arithmetic, side)
        for graph in ("block", "digits")
        for arithmetic in ("float", "fixed")
        for side in lava_speed.SIDES
    }
    assert all(r["n"] == 2 and r["spikes_compared"] > 0 == r["spikes_differing"] for r in rows)
    assert any("replayed: stream.0, prompt.lif" in r["what"] for r in rows)
    ratios = result["ratios"]
    for ending in ("", "_fixed", "_digits", "_digits_fixed", "_cpu", "_digits_fixed_cpu"):
        assert ratios[f"vs_stock{ending}"] == 50.0
        assert ratios[f"vs_fast_stock{ending}"] == 10.0
    assert ratios["vs_stock_one_step"] == 25.0
    assert {"vs_torch", "vs_torch_fp32", "vs_torch_fixed"} <= set(ratios)
    growth = [r for r in result["rows"] if r["measured"] == "growth"]
    assert {r["varied"] for r in growth} == {"blocks", "tokens", "experts", "thresholds"}
    loud, silent = (r for r in growth if r["varied"] == "thresholds")
    assert loud["firing_rate"] > silent["firing_rate"]
    assert "block, fixed: block 0 of a tiny one" in capsys.readouterr().out


def test_other_spikes_are_not_timed(tiny, monkeypatch):
    def wrong(graph, inputs, *, record=None, settings=None):
        trace = pretend(graph, inputs, record=record, settings=settings)
        if settings.network == "stock":
            spikes = dict(trace.spikes)
            spikes["blocks.0.moe.x"] = ~spikes["blocks.0.moe.x"]
            return SpikeTrace(spikes=spikes, logits=trace.logits, meta=trace.meta)
        return trace

    monkeypatch.setattr(lava_speed, "run_lava", wrong)
    with pytest.raises(ValueError, match=r"stock: population 'blocks.0.moe.x'.*no time is taken"):
        lava_speed.main([*TINY, "--no-growth"])


def test_other_logits_are_not_reported(tiny, monkeypatch):
    def wrong(graph, inputs, *, record=None, settings=None):
        trace = pretend(graph, inputs, record=record, settings=settings)
        shift = 1.0 if record else 0.0  # in the timed runs alone
        return SpikeTrace(spikes=trace.spikes, logits=trace.logits + shift, meta=trace.meta)

    monkeypatch.setattr(lava_speed, "run_lava", wrong)
    with pytest.raises(ValueError, match="other logits than the reference's"):
        lava_speed.main([*TINY, "--no-growth"])


@pytest.mark.parametrize("arithmetic", ["float", "fixed"])
def test_a_block_that_is_cut_out_sends_what_it_sent_in_the_network(arithmetic):
    config = tiny_config(depth=2)
    graph = prepare(lower(settled_model(config)), arithmetic)
    whole = run_reference(graph, to_inputs(graph, tiny_images(config, 4)))
    block = cut_out(graph, "blocks.1.", whole)
    assert block.replayed == ("stream.2", "prompt.lif")
    assert {"blocks.1.attention.q", "blocks.1.moe.gate", "stream.4"} <= set(block.names)
    alone = run_reference(block.graph, block.inputs)
    for name in block.names:
        assert np.array_equal(alone.spikes[name], whole.spikes[name]), name
    with pytest.raises(ValueError, match=r"no population's name begins with 'blocks\.7\.'"):
        cut_out(graph, "blocks.7.", whole)


@pytest.mark.parametrize("option", ["samples", "images", "repeats", "threads"])
def test_bad_arguments(option, capsys):
    with pytest.raises(SystemExit) as stop:
        lava_speed.parse_arguments([f"--{option}=0"])
    assert stop.value.code == 2
    assert f"--{option} 0 must be at least 1" in capsys.readouterr().err
