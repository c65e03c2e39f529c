"""Every model that lowers is the same network in torch and as a graph, in both residual forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from random_graphs import TRIALS
from random_models import ATTENTIONS, MIXINGS, ROUTINGS, Example, examples_of_models

from hardware.ir import LIF
from hardware.ir.stream import run_stream
from hardware.lowering import compare_with_torch, lower
from hardware.passes.bounds import check_bounds
from hardware.passes.quantise import quantise
from hardware.simulate import simulate, to_inputs
from hardware.trace import SpikeTrace

SAMPLES = 5


def examples(count: int) -> settings:
    """`count` models, the same ones each time; SPIKINGMOE_TRIALS random ones if that is set."""
    return settings(
        max_examples=TRIALS or count,
        deadline=None,
        derandomize=not TRIALS,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )


@pytest.mark.parametrize("routing", ROUTINGS)
def test_torch_is_the_reference_and_both_residual_forms_agree(routing: str) -> None:
    @examples(2)
    @given(example=examples_of_models(routing=routing))
    def check(example: Example) -> None:
        model, images = example.model(), example.images(SAMPLES)
        traces = {}
        for residual in ("relay", "unrolled"):
            graph = lower(model, residual=residual)
            found = compare_with_torch(model, graph, images, residual=residual, batch=3)
            assert found.comparison.same, found.comparison.first
            fixed = quantise(graph)
            check_bounds(fixed)
            traces[residual] = simulate(fixed, images)
        assert_same_spikes(traces["relay"], traces["unrolled"])
        event(f"{firing(traces['relay']):.1f} of the populations fire")

    check()


@examples(3)
@given(example=examples_of_models())
def test_integers_stream_as_the_reference_says(example: Example) -> None:
    fixed = quantise(lower(example.model()))
    images = example.images(3)
    expected, got = simulate(fixed, images), run_stream(fixed, to_inputs(fixed, images))
    assert_same_spikes(expected, got)


def assert_same_spikes(left: SpikeTrace, right: SpikeTrace) -> None:
    """Of all populations that both have and that spike; and the logits."""
    common = [n for n, v in left.spikes.items() if v.dtype == bool and n in right.spikes]
    assert len(common) > 5
    for name in common:
        assert np.array_equal(left.spikes[name], right.spikes[name]), name
    assert np.array_equal(left.logits, right.logits)


def firing(trace: SpikeTrace) -> float:
    """Share of the spiking populations that spiked at all."""
    spikes = [v for v in trace.spikes.values() if v.dtype == bool]
    return float(np.mean([v.any() for v in spikes]))


def test_the_examples_reach_every_option_and_are_not_silent() -> None:
    seen: set[object] = set()
    active: list[float] = []

    @settings(examples(120), max_examples=120, derandomize=True)
    @given(example=examples_of_models())
    def look(example: Example) -> None:
        c = example.config
        seen.update([c.routing, c.attention, f"{c.local_mixing} mixing", c.prompt, c.hold])
        seen.update(
            [f"{c.num_classes} classes", f"{c.input_channels} channels", f"T={c.time_steps}"]
        )
        seen.update([f"by {c.route_by}", f"stages {len(c.stage_depths)}", f"chain {c.chain}"])
        seen.add(f"feedback {c.cortical_feedback}")
        seen.add(f"shared {c.shared_experts > 0}")
        if len(active) < 6:
            graph = lower(example.model())
            trace = simulate(graph, example.images(4))
            assert graph.of_kind(LIF)
            active.append(firing(trace))

    look()
    wanted = {*ROUTINGS, *ATTENTIONS, *(f"{m} mixing" for m in MIXINGS), "learned", "random"}
    wanted |= {"10 classes", "100 classes", "2 channels", "3 channels", "stages 2", "by image"}
    wanted |= {
        "window",
        "chain depth",
        "feedback True",
        "shared True",
        *(f"T={t}" for t in range(1, 7)),
    }
    assert not wanted - seen
    assert np.mean(active) > 0.5
