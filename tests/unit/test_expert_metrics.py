"""The `experts` part of metrics.json, on gates written down by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from hardware.trace import SpikeTrace
from spikingmoe.cli.inspect import _most
from spikingmoe.cli.metrics import expert_metrics

EXPERTS = 2


def traced(**spikes):
    return SpikeTrace(spikes=spikes, logits=np.zeros((1, 2)), meta={})


def test_an_image_wise_gate_counts_for_all_its_tokens():
    """Two stages of 4x4 and 2x2 tokens; one step; 16 x 1 and 4 x 2 of 2 gates are open."""
    early = np.zeros((1, 1, 1, 1, EXPERTS), dtype=bool)
    early[..., 0] = True
    late = np.ones((1, 1, 2, 2, EXPERTS), dtype=bool)
    trace = traced(
        **{
            "blocks.0.moe.x": np.zeros((1, 1, 4, 4, 3), dtype=bool),
            "blocks.0.moe.gate": early,
            "blocks.1.moe.x": np.zeros((1, 1, 2, 2, 3), dtype=bool),
            "blocks.1.moe.gate": late,
        }
    )
    graph = SimpleNamespace(gate_limits={"blocks.0.moe": 1, "blocks.1.moe": 2})
    found = expert_metrics(trace, graph)  # type: ignore[arg-type]
    assert found["load"] == {"blocks.0.moe": [1.0, 0.0], "blocks.1.moe": [0.5, 0.5]}
    assert found["silent_share"] == pytest.approx(1 - (16 + 8) / (32 + 8))


def test_where_an_expert_works_most_needs_a_difference():
    shares = np.full((4, 4), 0.25)
    name = "row {}, column {}".format
    assert _most(shares, lambda at: name(*at)) == "-"
    shares[1, 2] = 0.75
    assert _most(shares, lambda at: name(*at)) == "row 1, column 2: 75 %"
