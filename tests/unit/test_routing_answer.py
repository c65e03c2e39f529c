"""The routing benchmark: its variants, its records, and the comparisons that it draws from them."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from tiny_models import settled_model, tiny_config, tiny_images

from benchmarks.intervals import Comparison
from benchmarks.routing_study.answer import EQUAL_SYNOPS, NEAREST, answer_of
from benchmarks.routing_study.measures import active_parameters, answer, expert_figures
from benchmarks.routing_study.plot import draw
from benchmarks.routing_study.record import Record, Synops, pack_right, read_record
from benchmarks.routing_study.table import markdown, notes, row_values
from benchmarks.routing_study.variants import (
    DENSE,
    DENSE_PARAMETERS,
    FAMILIES,
    VARIANTS,
    choose_variants,
    same_as,
)
from spikingmoe.config import TrainConfig, dense_twin, get_preset
from spikingmoe.data.image_data import Split
from spikingmoe.model import SpikingTransformer
from spikingmoe.sizes import count_parameters, equal_parameters_width

BASE, SETTINGS = get_preset("digits"), TrainConfig()
SAME = same_as(BASE, SETTINGS)


def record(name, seed, right, synops, validation=0.5):
    """A record of 100 images of which the first `right` are right."""
    answers = np.arange(100) < right
    return Record(
        variant=name,
        seed=seed,
        model={},
        train={},
        validation_accuracy=validation,
        test_accuracy=right / 100,
        test_right=pack_right(answers),
        test_images=100,
        parameters=1000,
        active_parameters=500.0,
        synops=None
        if synops is None
        else Synops(
            total=synops, experts=synops / 2, router=synops / 4, prompt=0.0, rest=0.0, graded=0.0
        ),
        refusal="cannot lower 'router'" if synops is None else None,
        train_seconds=1.0,
    )


def answered(**by_name):
    """The answer from {name: [(right, synops) or (right, synops, validation) per seed]}."""
    records = {
        name: {seed: record(name, seed, *figures) for seed, figures in enumerate(runs)}
        for name, runs in by_name.items()
    }
    seeds = range(max(len(runs) for runs in by_name.values()))
    return answer_of(records, VARIANTS, SAME, list(seeds))


def row_of(found, name):
    return next(row for row in found.rows if row.name == name)


@pytest.mark.parametrize("preset", ["digits", "cifar-tiny", "cifar-small", "cifar-base"])
def test_every_variant_is_allowed_in_every_preset(preset):
    base = get_preset(preset)
    configs = {v.name: v.configs(base, SETTINGS) for v in VARIANTS}
    assert set(same_as(base, SETTINGS)) == set(configs)
    assert len(configs) == len(VARIANTS)
    for variant in VARIANTS:
        model, _ = configs[variant.name]
        assert (model.routing == "dense") == (variant.family == "dense")
        assert model.time_steps == base.time_steps
        assert model.attention == base.attention


def test_no_word_means_two_things():
    """`--variants` takes both names and families; "dense" is a family."""
    assert not set(FAMILIES) & {v.name for v in VARIANTS}
    assert [v.name for v in choose_variants(["top2"])] == [DENSE, DENSE_PARAMETERS, "top2"]
    assert {v.family for v in choose_variants(["dense"])} == {"dense"}
    assert len(choose_variants(["dense"])) == 6


def test_variants_change_what_they_say():
    """The table against the model family's options, one by one."""
    found = {v.name: v.configs(BASE, SETTINGS) for v in VARIANTS}
    assert found["top2"][0].top_k == 2
    for gradient in ("full", "chosen", "margin", "none"):
        assert found[f"gradient_{gradient}"][0].gate_gradient == gradient
    for rule in ("noisy_top_k", "threshold", "dynamic", "expert_choice", "hash", "hierarchical"):
        assert found[rule][0].routing == rule
    assert (found["image_window"][0].route_by, found["image_window"][0].hold) == ("image", "window")
    assert found["shared"][0].shared_experts == 1
    assert found["fine"][0].num_experts == 4 * BASE.num_experts
    assert found["alternating"][0].mixture_every == 2
    assert found["chain_depth"][0].chain_length == 2
    assert found["prompt_only"][0].router_input == "none"
    assert found["membrane"][0].router_input == "membrane"
    assert found["no_homeostasis"][1].homeostatic_rate == 0
    assert found["temperature"][1].temperature_epochs == SETTINGS.epochs // 2
    trained_alike = [n for n, (_, train) in found.items() if train == SETTINGS]
    assert "temperature" not in trained_alike
    assert DENSE in trained_alike


@pytest.mark.parametrize("preset", ["digits", "cifar-small"])  # K = 1 and K = 2
@pytest.mark.parametrize("name", ["shared", "fine", "halves"])
def test_cut_experts_keep_the_active_and_the_total_width(name, preset):
    base = get_preset(preset)
    model, _ = next(v for v in VARIANTS if v.name == name).configs(base, SETTINGS)
    active = (model.top_k + model.shared_experts) * model.expert_width
    total = (model.num_experts + model.shared_experts) * model.expert_width
    assert active == base.top_k * base.expert_width
    assert total == base.num_experts * base.expert_width


@pytest.mark.parametrize("preset", ["digits", "cifar-tiny", "cifar-base"])
def test_the_twin_at_equal_parameters_is_the_closest_one(preset):
    """No neighbouring width has a number of parameters nearer to the mixture's."""
    base = get_preset(preset)
    width, step = equal_parameters_width(base), 2 ** len(base.early_depths)
    target = count_parameters(base).total
    off = [
        abs(count_parameters(dense_twin(base, mlp_width=w)).total - target)
        for w in (width - step, width, width + step)
    ]
    assert off[1] == min(off)
    assert off[1] < 0.01 * target


def test_variants_are_chosen_by_name_or_family_with_their_twins():
    names = [v.name for v in choose_variants(["gate", "top2"])]
    assert {DENSE, DENSE_PARAMETERS, "top2", "hash", "threshold"} <= set(names)
    assert "shared" not in names
    assert len(choose_variants([])) == len(VARIANTS)
    with pytest.raises(ValueError, match="unknown variant or family 'hsh'; did you mean 'hash'"):
        choose_variants(["hsh"])


def test_equal_variants_share_a_run():
    assert SAME["top1"] == SAME["by_token"] == "mixture"
    assert SAME["top2"] == "top2"
    other = get_preset("cifar-small")  # K = 2
    assert same_as(other, SETTINGS)["top2"] == "mixture"


def test_comparison_at_equal_synops_interpolates_each_seed():
    """Dense 50 right at 100 and 70 at 400 operations: 60 at 200. The mixture has 64 and 66 there."""
    found = answered(
        dense_1x=[(50, 100.0), (50, 100.0)],
        dense_2x=[(70, 400.0), (70, 400.0)],
        mixture=[(64, 200.0), (66, 200.0)],
    )
    comparison = row_of(found, "mixture").comparisons[EQUAL_SYNOPS]
    assert isinstance(comparison, Comparison)
    assert comparison.theirs == pytest.approx(0.60)
    assert comparison.over_seeds.mean == pytest.approx(0.05)
    half = 12.706204736 * 0.01  # t(0.975, 1) * s / sqrt(2), s = 0.02 / sqrt(2)
    assert comparison.over_seeds.high == pytest.approx(0.05 + half)
    assert comparison.mcnemar_p is None


def test_equal_synops_use_the_twins_of_the_same_seed():
    """Seed 1 has better twins; its mixture is compared with those, not with seed 0's."""
    found = answered(
        dense_1x=[(50, 100.0), (60, 100.0)],
        dense_2x=[(70, 400.0), (80, 400.0)],
        mixture=[(65, 200.0), (75, 200.0)],
    )
    comparison = row_of(found, "mixture").comparisons[EQUAL_SYNOPS]
    assert isinstance(comparison, Comparison)
    assert comparison.over_seeds.low == pytest.approx(0.05)
    assert comparison.over_seeds.high == pytest.approx(0.05)


def test_outside_of_the_twins_range_and_without_lowering_there_is_no_comparison():
    found = answered(
        dense_1x=[(50, 100.0)],
        dense_2x=[(70, 400.0)],
        mixture=[(90, 401.0)],
        membrane=[(95, None)],
    )
    assert "outside the dense twins' range" in str(
        row_of(found, "mixture").comparisons[EQUAL_SYNOPS]
    )
    membrane = row_of(found, "membrane")
    assert membrane.comparisons[EQUAL_SYNOPS] == "cannot be lowered"
    assert membrane.synops is None
    assert NEAREST not in membrane.comparisons
    assert isinstance(membrane.comparisons[DENSE], Comparison)


def test_nearest_twin_by_ratio_of_operations():
    """221 lies nearer to 110 by difference, but by ratio to 400: 2.01 against 1.81."""
    found = answered(dense_1x=[(50, 110.0)], dense_params=[(70, 400.0)], mixture=[(60, 221.0)])
    assert row_of(found, "mixture").nearest == DENSE_PARAMETERS


def test_only_common_seeds_are_paired():
    found = answered(
        dense_1x=[(50, 100.0), (52, 100.0)], mixture=[(60, 100.0), (62, 100.0), (99, 100.0)]
    )
    comparison = row_of(found, "mixture").comparisons[DENSE]
    assert isinstance(comparison, Comparison)
    assert comparison.over_seeds.n == 2
    assert comparison.over_seeds.mean == pytest.approx(0.10)
    assert (comparison.only_ours, comparison.only_theirs) == (20, 0)
    assert row_of(found, "mixture").comparisons[DENSE_PARAMETERS] == (
        "no seed in common with dense_params"
    )


def test_the_choice_is_by_validation_among_complete_mixtures_that_lower():
    twins = {"dense_1x": [(50, 100.0)] * 2, "dense_params": [(55, 400.0)] * 2}
    found = answered(
        **twins,
        mixture=[(60, 200.0, 0.6)] * 2,
        top2=[(70, 200.0, 0.9)],  # one seed alone
        membrane=[(90, None, 0.9)] * 2,
        hash=[(90, 100.0, 0.5)] * 2,  # best on test images, not on validation
        window=[(60, 150.0, 0.6)] * 2,  # as good as "mixture", with fewer operations
    )
    assert found.chosen is not None
    assert found.chosen.name == "window"
    assert found.ratios["errors_vs_dense_1x"] == pytest.approx(50 / 40)
    assert found.ratios["errors_vs_dense_params"] == pytest.approx(45 / 40)
    assert found.ratios["synops_vs_dense_params"] == pytest.approx(400 / 150)
    assert answered(dense_1x=[(50, 100.0)]).chosen is None


def test_texts_and_picture_hold_every_row(tmp_path):
    found = answered(
        dense_1x=[(50, 100.0), (52, 101.0)],
        dense_params=[(70, 400.0), (71, 402.0)],
        mixture=[(64, 200.0), (66, 200.0)],
        membrane=[(95, None), (93, None)],
    )
    lines = notes(found, {"seeds": "0, 1"}, ["top2-seed0"])
    page = markdown(found.rows, "Title", lines)
    assert "| mixture | 2 | 50.00 ± 0.00 | 65.00 ± 12.71 |" in page
    assert "cannot be lowered" in page
    assert "not finished: top2-seed0" in page
    values = json.loads(json.dumps([row_values(row, found) for row in found.rows]))
    assert [v["n"] for v in values] == [2, 2, 2, 2]
    mixture = next(v for v in values if v["variant"] == "mixture")
    assert mixture["comparisons"][DENSE]["p_holm"] >= mixture["comparisons"][DENSE]["p"]
    picture = tmp_path / "plot.svg"
    draw(found.rows, "Title", picture)
    text = picture.read_text()
    assert "membrane" not in text
    with pytest.raises(ValueError, match="no finished run has synaptic operations"):
        draw([row_of(found, "membrane")], "Title", picture)


def test_record_returns_from_its_file(tmp_path):
    written = record("mixture", 3, 37, 123.0)
    written.write(tmp_path)
    assert read_record(tmp_path) == written
    assert written.right.sum() == 37
    assert len(written.right) == 100
    values = asdict(written)
    del values["seed"]
    (tmp_path / "record.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match="is no record of this benchmark"):
        read_record(tmp_path)
    assert read_record(tmp_path / "nothing") is None


def test_answers_and_experts_against_one_pass():
    """Sums over batches equal what one pass over all images shows; E = 3, K = 1."""
    config = tiny_config()
    model = settled_model(config)
    images = tiny_images(config, 300, seed=5)
    out = model(images)
    labels = out.logits.argmax(1).clone()
    labels[:30] = (labels[:30] + 1) % 3
    found = answer(model, Split(images, labels))
    assert found.right.sum() == 270
    assert not found.right[:30].any()
    gates = out.routing[0].gates
    np.testing.assert_array_equal(found.choices[0], gates.sum((0, 1, 2)).numpy())
    np.testing.assert_allclose(found.open_share[0], gates.mean((0, 1, 2)).numpy(), rtol=1e-6)
    figures = expert_figures(found)
    assert figures["open_experts"] == pytest.approx(1.0)
    assert figures["experts"] == 3


@pytest.mark.parametrize("overrides", [{}, {"top_k": 2}, {"hold": "window"}])
def test_active_parameters_are_those_of_k_experts(overrides):
    """With all experts of one size, K of E work wherever a gate is open: the closed form."""
    config = tiny_config(**overrides)
    model = settled_model(config)
    images = tiny_images(config, 8)
    shares = answer(model, Split(images, images.new_zeros(8).long())).open_share
    expected = count_parameters(config)
    assert active_parameters(model, shares) == pytest.approx(expected.active)
    assert expected.active < expected.total


def test_a_dense_model_is_wholly_active():
    model = SpikingTransformer(dense_twin(tiny_config()))
    assert active_parameters(model, []) == sum(p.numel() for p in model.parameters())
