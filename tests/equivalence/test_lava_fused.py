"""Fused Lava processes, under both of their models, send the spikes of the reference."""

from __future__ import annotations

import pytest
from graphs import Case, assert_same, cases
from hypothesis import HealthCheck, Phase, given, settings
from tiny_models import settled_model, tiny_config, tiny_images

from hardware.errors import BackendError
from hardware.ir import run_reference
from hardware.lava.run import run_lava
from hardware.lava.settings import Settings
from hardware.lowering import lower
from hardware.passes.pipeline import prepare
from hardware.simulate import to_inputs
from hardware.verify import compare_traces

FEW = settings(
    max_examples=2,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)
THREE = Settings(segments=3)
NESTED = Settings(network="nested", segments=3)


@pytest.mark.lava
@pytest.mark.parametrize("arithmetic", ["float", "fixed"])
def test_both_models_of_the_same_processes_equal_the_reference(arithmetic: str) -> None:
    @FEW
    @given(case=cases(arithmetic=arithmetic, least=4, most=9))
    def check(case: Case) -> None:
        expected = run_reference(case.graph, case.inputs)
        for choice in (THREE, NESTED):
            assert_same(expected, run_lava(case.graph, case.inputs, settings=choice))

    check()


MODELS = {
    "relay": ({}, "relay"),
    "unrolled": ({}, "unrolled"),
    "held": ({"hold": "window", "hold_step": 1}, "relay"),
}


@pytest.mark.lava
@pytest.mark.parametrize("kind", list(MODELS))
def test_a_whole_model(kind: str) -> None:
    """Prompt, attention, top-k, gated experts; the residual stream in both forms; a held decision."""
    overrides, residual = MODELS[kind]
    config = tiny_config(**overrides)
    graph = lower(settled_model(config), residual=residual)
    graph = prepare(graph, "float" if kind == "unrolled" else "fixed")
    inputs = to_inputs(graph, tiny_images(config, 3))
    expected = run_reference(graph, inputs)
    fused = run_lava(graph, inputs, settings=Settings(segments=2))
    assert compare_traces(graph, expected, fused).same
    if kind == "relay":
        nested = run_lava(graph, inputs, settings=Settings(network="nested", segments=2))
        assert_same(expected, nested)
        assert nested.meta["backend"] == "lava-nested"


@pytest.mark.lava
def test_schedule_and_messages_change_nothing() -> None:
    config = tiny_config()
    graph = prepare(lower(settled_model(config)), "fixed")
    inputs = to_inputs(graph, tiny_images(config, 4))
    expected = run_reference(graph, inputs)
    for choice in (
        Settings(segments=2, at_once=1),
        Settings(segments=3, at_once=1000),
        Settings(segments=2, at_once=5, schedule="stepwise"),
    ):
        assert_same(expected, run_lava(graph, inputs, settings=choice))


def test_settings_name_what_is_wrong() -> None:
    with pytest.raises(BackendError, match="network='merged' is unknown; use fused or nested or"):
        Settings(network="merged")  # type: ignore[arg-type]
    with pytest.raises(BackendError, match="segments=0 must be a positive whole number"):
        Settings(segments=0)
    with pytest.raises(BackendError, match="at_once=4: stock processes take one step per message"):
        Settings(network="nested", at_once=4)
