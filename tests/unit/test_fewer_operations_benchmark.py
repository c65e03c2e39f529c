"""The benchmark of fewer operations: its rows, its table, what it refuses before it trains."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import fewer_operations
from benchmarks.fewer_operations import FREE, free_synops, means, rows_of, variants
from benchmarks.harness import Report
from spikingmoe.cli.fewer_steps import ENERGY
from spikingmoe.config import TrainConfig


def row(seed: int, accuracy: float, **changes: object) -> dict[str, object]:
    """Of a free mixture's whole windows."""
    return {
        "model": "moe",
        "variant": FREE,
        "seed": seed,
        "reading": "4 steps",
        "accuracy": accuracy,
        "synops_per_sample": 1000.0 * (seed + 1),
        "validation_synops": 900.0 * (seed + 1),
        ENERGY: 2.5 * (seed + 1),
        "steps": 4.0,
        "latency_steps": 33.0,
        "interval_steps": 4.0,
        **changes,
    }


def test_shares_are_of_the_free_mixture_of_the_same_seed() -> None:
    older = {k: v for k, v in row(1, 0.9).items() if k != "model"}  # rows named no model once
    report = Report(seeds=[0, 1], rows=[row(0, 0.8), older, row(1, 0.7, model="dense")])
    assert free_synops(report, 0) == 900
    assert free_synops(report, 1) == 1800
    assert rows_of(report, "moe", FREE, 1) == [older]
    with pytest.raises(ValueError, match="seed 2: budgets are shares of the free mixture's; add"):
        free_synops(report, 2)


def test_budgets_up_to_one_are_shares() -> None:
    recipes = variants(TrainConfig(), 1000.0, [0.4, 250.0], [0.1])
    assert recipes["budget 0.4"].synops_budget == 400
    assert recipes["budget 250"].synops_budget == 250
    assert (recipes["rate 0.1"].rate_target, recipes["rate 0.1"].synops_budget) == (0.1, 0)


def test_means_keep_models_apart() -> None:
    found = means([row(0, 0.8), row(1, 0.9), row(0, 0.5, model="dense")])
    assert [(r["model"], r["seeds"], r["accuracy"]) for r in found] == [
        ("moe", 2, pytest.approx(0.85)),
        ("dense", 1, 0.5),
    ]


def test_it_draws_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"seeds": [0], "rows": [row(0, 0.8), row(0, 0.5, model="dense")]}))
    assert fewer_operations.main(["--json", str(path), "--draw-only"]) == 0
    assert (
        "| dense | free | 4 steps | 1 | 50.00 % | 1,000 |  | 2.5 | 4.00 |"
        in path.with_suffix(".md").read_text()
    )
    assert path.with_suffix(".png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--json", "{tmp}/x.json", "--models", "dense"], "seed 0: budgets are shares"),
        (["--json", "{tmp}/none/x.json"], "is no file in a folder that exists"),
        (["--json", "{tmp}/none.json", "--draw-only"], "No such file"),
    ],
)
def test_what_it_refuses_before_any_training(
    argv: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fewer_operations.main([a.format(tmp=tmp_path) for a in argv]) == 2
    assert words in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
