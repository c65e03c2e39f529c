"""The dense twin at equal measured operations: its search, and its result on a small model."""

from __future__ import annotations

from dataclasses import replace

import pytest
from small_runs import SETTINGS, small_data
from tiny_models import settled_model, tiny_config

from spikingmoe.cli.equal_synops import (
    TOLERANCE,
    Search,
    describe,
    equal_synops_twin,
    search_width,
)
from spikingmoe.cli.metrics import energy_of
from spikingmoe.cli.twins import USUAL, chosen_twins, dense_params_twin
from spikingmoe.config import get_preset
from spikingmoe.sizes import count_parameters
from spikingmoe.train.checkpoint import Run


def test_a_secant_finds_the_width_of_an_affine_cost():
    tried = search_width(1000.0, 10, 5.0, 1, lambda width: 100 + 9.0 * width)
    assert tried == ((10, 190.0), (172, 1648.0), (100, 1000.0))


def test_it_stops_within_the_tolerance_and_after_four():
    once = search_width(100.0, 8, 1.0, 1, lambda _: 96.0)
    assert once == ((8, 96.0),)
    never = search_width(100.0, 8, 1.0, 2, lambda width: 10.0 + width % 3)
    assert len(never) == 4
    assert all(width % 2 == 0 for width, _ in never)


def test_the_nearest_one_is_taken_and_told():
    search = Search(origin="x", target=100.0, images=8, tried=((4, 80.0), (6, 111.0)))
    assert search.best == (6, 111.0)
    assert not search.reached
    assert "width 6, 111 synaptic operations per image, +11.0 %" in describe(search)
    assert "NOT within 5 %" in describe(search)


def settled_run(config, folder):
    """A model with believable statistics, as if it had been trained in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "checkpoint").write_text(str(config))
    return Run(
        path=folder / "checkpoint",
        model=settled_model(config),
        model_config=config,
        train_config=SETTINGS,
        epoch=1,
        history=[],
        versions={},
    )


def test_the_nearest_twin_of_a_small_model_is_taken_by_counted_spikes(tmp_path):
    """Each width is another random model here, so the cost is no line; a second call searches no more."""
    config = tiny_config(image_size=8, num_classes=10, prompt="none")
    data, built = small_data(), []
    run = settled_run(config, tmp_path / "moe")

    def train_twin(twin, out):
        built.append(twin.mlp_width)
        return settled_run(twin, out)

    twin, search = equal_synops_twin(run, SETTINGS, data, tmp_path / "twin", train_twin)
    split = data.validation.first(64)
    ours, theirs = (
        energy_of(r, split, ["horowitz45"], None)["horowitz45"].synops_per_sample
        for r in (run, twin)
    )
    assert (ours, theirs) == (search.target, search.best[1])
    assert abs(theirs - ours) == min(abs(synops - ours) for _, synops in search.tried)
    assert search.reached == (abs(theirs / ours - 1) <= TOLERANCE)
    assert twin.model_config.mlp_width == search.best[0]
    built.clear()
    again, kept = equal_synops_twin(run, SETTINGS, data, tmp_path / "twin", train_twin)
    assert (again.model_config, kept, built) == (twin.model_config, search, [search.best[0]])
    other = settled_run(replace(config, top_k=2), tmp_path / "other")
    _, anew = equal_synops_twin(other, SETTINGS, data, tmp_path / "twin", train_twin)
    assert anew.target > search.target, "what was found for another mixture is not reused"


def test_equal_parameters_are_equal_up_to_the_rounding_of_the_width():
    config = get_preset("digits")
    twin = dense_params_twin(config)
    ours, theirs = count_parameters(config).total, count_parameters(twin).total
    wider = count_parameters(replace(twin, mlp_width=twin.mlp_width + 1)).total
    assert abs(ours - theirs) <= (wider - theirs) / 2


def test_twins_are_named():
    assert chosen_twins("true") == USUAL
    assert chosen_twins("false") == ()
    assert chosen_twins("relu,quantised_relu,relu") == ("relu", "quantised_relu")
    with pytest.raises(
        ValueError, match=r"twins=dense,quantized_relu; .*did you mean 'quantised_relu'"
    ):
        chosen_twins("dense,quantized_relu")
