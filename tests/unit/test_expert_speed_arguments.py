"""The timing benchmark refuses sizes that it cannot time, and times widths that no head divides."""

import importlib
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def expert_speed(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("expert_speed")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--threads", "0"], "--threads 0 must be at least 1"),
        (["--tokens=-1"], "--tokens -1 must be at least 1"),
        (["--top-k", "17"], "--top-k 17 must lie in 1..16"),
        (["--clock", "cpu"], "use --threads 1, not 2"),
    ],
)
def test_bad_arguments(expert_speed, argv, words, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["expert_speed.py", *argv])
    with pytest.raises(SystemExit) as stop:
        expert_speed.parse_arguments()
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


def test_any_width_can_be_timed(expert_speed):
    assert expert_speed.make_config(3, 30, 7).embed_dim == 30
