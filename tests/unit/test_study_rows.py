"""The study's arithmetic by hand: break-even rates, ratios, the front; its points and settings."""

from __future__ import annotations

import dataclasses
import json

import pytest
from PIL import Image

from benchmarks.error_axis import LEAST_ERROR, error
from benchmarks.intervals import Interval
from benchmarks.study.plot import draw, error_bars, name_marks
from benchmarks.study.points import Axes, Point, base_point, factor_points, grid_points
from benchmarks.study.record import Measured, StudyRecord, record_from
from benchmarks.study.rows import against_twins, break_even, pareto_front, rows_of, spike_rates
from benchmarks.study.run import finished, run_folder
from benchmarks.study.settings import StudySettings
from spikingmoe.config import TrainConfig, get_preset
from spikingmoe.config.twins import quantised_relu_twin

BASE = get_preset("digits")
AXES = Axes(
    experts=(2, 4),
    top_k=(1,),
    routing=("top_k",),
    time_steps=(4, 1),
    attention=("qk",),
    bits=(8,),
    twins=("dense", "quantised_relu"),
)


def settings(**changes):
    values = {
        "kind": "factors",
        "base": BASE,
        "train": TrainConfig(epochs=1),
        "axes": AXES,
        "seeds": (0, 1, 2),
        "images": 4,
        "costs": ("mine",),
        "trials": 0,
    }
    return StudySettings(**(values | changes))


def measured(test, energy, *, synops=1000.0, accumulates=800.0, event=60.0, first=None):
    return Measured(
        validation=test,
        test=test,
        synops=synops,
        accumulates=accumulates,
        energy_pj={"mine": (energy, energy / 2, 2 * energy)},
        event_pj={} if first else {"mine": event},
        first_layer_macs=first,
    )


def record(model, seed, one, **changes):
    point = dataclasses.replace(base_point(BASE), model=model, **changes)
    config = quantised_relu_twin(BASE) if model == "quantised_relu" else BASE
    return StudyRecord(
        point=point,
        seed=seed,
        model=json.loads(json.dumps(config.as_dict())),
        train={},
        parameters=10,
        measured={"8 bits": one},
        test_images=50,
        validation_images=20,
    )


def test_break_even_by_hand():
    """800 accumulates over 500 - 100 connections; 40 pJ stay and 60 pJ follow the spikes; the rival
    costs 70: half of the spikes (30 pJ) are left. A connection costs 70 / 500, a spike's accumulate
    60 / 800."""
    spiking, rival = measured(0.9, 100.0), measured(0.9, 70.0, synops=500.0, first=100.0)
    rate, even, prices = spike_rates(spiking, rival, "mine")
    assert rate == 2.0
    assert even == pytest.approx(1.0)
    assert prices == pytest.approx((70 / 500) / (60 / 800))
    never = measured(0.9, 30.0, synops=500.0, first=100.0)
    assert spike_rates(spiking, never, "mine")[1] == pytest.approx(-2 * 10 / 60)


def test_pairs_are_of_the_same_seed():
    """Differences 1, 2, 3 points: 2 +- 4.3027 / sqrt(3); without pairing they would spread wider."""
    records = []
    for seed, (ours, theirs) in enumerate([(0.91, 0.90), (0.72, 0.70), (0.83, 0.80)]):
        records.append(record("moe", seed, measured(ours, 100.0)))
        records.append(record("dense", seed, measured(theirs, 50.0)))
    (found,) = against_twins(records, settings())
    assert found.points.mean == pytest.approx(2.0)
    assert found.points.high == pytest.approx(4.4841, abs=1e-4)
    assert found.energy_ratio["mine"].mean == pytest.approx(2.0)
    assert against_twins(records[:1], settings()) == []


def test_break_even_rows_are_by_time_steps():
    records = [
        record("dense", 0, measured(0.9, 100.0)),
        record("quantised_relu", 0, measured(0.8, 70.0, synops=500.0, first=100.0)),
        record("dense", 0, measured(0.9, 100.0), time_steps=1),
    ]
    (found,) = break_even(records, settings())
    assert (found.time_steps, found.bits, found.table) == (4, 3, "mine")
    assert found.energy_ratio.mean == pytest.approx(100 / 70)
    assert found.points.mean == pytest.approx(10)


def test_the_front_has_what_nothing_beats(tmp_path):
    records = [
        record("moe", 0, measured(0.9, 100.0)),
        record("dense", 0, measured(0.95, 90.0)),
        record("quantised_relu", 0, measured(0.97, 95.0, first=9.0)),
        record("dense", 0, measured(0.5, 10.0), time_steps=1),
    ]
    rows = rows_of(records, settings())
    assert [row.point.is_mixture for row in rows] == [True, False, False, False]
    front = pareto_front(rows, "mine")
    assert [(r.point.model, r.point.time_steps) for r in front] == [
        ("dense", 1),
        ("dense", 4),
        ("quantised_relu", 4),
    ]
    draw(rows, "mine", "title", tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as picture:
        assert picture.width > 800
    with pytest.raises(ValueError, match="no finished run has a price under 'other' yet"):
        draw(rows, "other", "title", tmp_path / "plot.png")


def test_names_in_the_picture_do_not_cover_each_other():
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    records = [
        record("moe", 0, measured(0.9 + 0.001 * i, 100.0 + i), experts=2 + i) for i in range(6)
    ]
    rows = rows_of(records, settings())
    figure = Figure(figsize=(8, 5))
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set(xscale="log", yscale="log", xlim=(0.05, 0.2), ylim=(20, 5))
    texts = name_marks(axes, rows, "mine")
    boxes = [text.get_window_extent() for text in texts]
    assert len({text.get_text() for text in texts}) == 6
    assert all(box.count_overlaps(boxes) == 1 for box in boxes)  # each with itself


def test_errors_are_what_accuracy_lacks():
    assert error(0.98) == pytest.approx(2)
    assert error(1.0) == LEAST_ERROR  # there is no logarithm of none
    low, high = error_bars(Interval(mean=0.98, low=0.96, high=1.02, n=3))
    assert low == pytest.approx([2 - LEAST_ERROR])
    assert high == pytest.approx([2])


def test_a_record_of_an_earlier_version_is_taken_over(tmp_path):
    point, asked = base_point(BASE), settings()
    older = record("moe", 0, measured(0.9, 100.0))
    recipe = json.loads(json.dumps(asked.train_for(0).as_dict()))
    newest = "synops_budget"
    older = dataclasses.replace(
        older, point=point, train={k: v for k, v in recipe.items() if k != newest}
    )
    older.write(run_folder(tmp_path, point, 0))
    assert finished(asked, point, 0, tmp_path) == older
    other = dataclasses.replace(asked, train=dataclasses.replace(asked.train, synops_budget=9e9))
    with pytest.raises(ValueError, match="was trained with other settings"):
        finished(other, point, 0, tmp_path)


def test_one_factor_at_a_time_with_twins_at_each_number_of_steps():
    names = [(p.model, p.experts, p.time_steps) for p in factor_points(BASE, AXES)]
    assert names == [
        ("moe", 4, 4),
        ("moe", 2, 4),
        ("moe", 4, 1),
        ("dense", 4, 4),
        ("quantised_relu", 4, 4),
        ("dense", 4, 1),
        ("quantised_relu", 4, 1),
    ]


def test_a_grid_has_every_allowed_combination():
    axes = dataclasses.replace(AXES, top_k=(1, 3), twins=())
    found = {(p.experts, p.top_k, p.time_steps) for p in grid_points(BASE, axes)}
    assert found == {(2, 1, 4), (2, 1, 1), (4, 1, 4), (4, 1, 1), (4, 3, 4), (4, 3, 1)}
    with pytest.raises(ValueError, match=r"no combination of the axes is allowed: .*top_k=9"):
        grid_points(BASE, dataclasses.replace(axes, top_k=(9,)))


def test_a_record_comes_back_as_it_was_written():
    one = record("dense", 1, measured(0.9, 100.0))
    assert record_from(json.loads(json.dumps(one.as_dict()))) == one
    with pytest.raises(ValueError, match="is no record of this study"):
        record_from({"seed": 1})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": (0, 1, 0)}, "--seeds: 0 is given twice"),
        ({"axes": dataclasses.replace(AXES, bits=(9,))}, "--bits 9: .* 2 to 8 bits"),
        ({"axes": dataclasses.replace(AXES, top_k=(1, 1))}, "--top-k: 1 is given twice"),
        ({"images": 0}, "--images 0 must be at least 1"),
        ({"kind": "pareto"}, "--trials 0: a pareto study needs at least 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        settings(**changes)


def test_points_that_are_not_allowed_are_named():
    point = Point(model="moe", experts=2, top_k=3, routing="top_k", time_steps=1, attention="qk")
    with pytest.raises(ValueError, match=r"point 'moe-e2-k3-top_k-t1-qk': .*top_k=3"):
        point.config(BASE)
