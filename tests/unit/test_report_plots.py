"""The rows behind each plot of the report: worked values, and nothing made of bad ones."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest
from made_up_run import EXPERTS, GRID, SAMPLES, STEPS, full_metrics, make_facts, report

from spikingmoe.report.page import build_page, compare_page
from spikingmoe.report.parts import MOST_EXPERTS, merged_parts
from spikingmoe.report.plots.accuracy import accuracy_rows, own_accuracy
from spikingmoe.report.plots.activity import activity_rows
from spikingmoe.report.plots.energy import energy_rows
from spikingmoe.report.plots.mapping import empty_rows, mapping_plot, mapping_rows
from spikingmoe.report.plots.pareto import SYNOPS, pareto_plot, pareto_rows
from spikingmoe.report.plots.plot import figures
from spikingmoe.report.plots.router_map import router_map_rows
from spikingmoe.report.plots.scripts import library
from spikingmoe.report.plots.specialisation import ALL, specialisation_rows
from spikingmoe.report.samples import silent_tokens

ROUTER = "blocks.0.moe"


def band(value):
    return {"value": value, "low": value / 2, "high": 2 * value}


def costs(**by_model):
    return {"t": {name: {"energy_pj_per_sample": band(value)} for name, value in by_model.items()}}


def test_accuracies_in_percent_with_wilson_intervals():
    rows = accuracy_rows({"accuracy": {"torch": 0.5, "samples": 100, "twins": {"dense": 0.25},
                                       "test": {"torch": 0.75, "samples": 400}}})  # fmt: skip
    assert [(row["what"], row["accuracy"], row["images"]) for row in rows] == [
        ("torch", 50.0, 100),
        ("torch (all)", 75.0, 400),
        ("dense twin (all)", 25.0, 400),
    ]
    assert (rows[0]["low"], rows[0]["high"]) == pytest.approx((40.38, 59.62), abs=0.01)  # by hand


def test_the_accuracy_of_the_whole_test_set_goes_before_that_of_a_part():
    assert own_accuracy(full_metrics()) == (0.975, 359)
    assert own_accuracy({"accuracy": {"torch": 0.5, "samples": 8}}) == (0.5, 8)
    assert own_accuracy({"accuracy": {"torch": 1.5, "samples": 8}}) is None


def test_the_pareto_front_holds_what_nothing_beats_in_both():
    tested = {"torch": 0.5, "samples": 100}
    cheap = {"accuracy": {"test": tested, "twins": {"dense": 0.75}},
             "energy": costs(moe=1000.0, dense=3000.0)}  # fmt: skip
    dear = {"accuracy": {"test": {**tested, "torch": 0.4}}, "energy": costs(moe=2000.0)}
    rows = pareto_rows({"a": cheap, "b": dear})
    assert [(r["run"], r["model"], r["x"], r["accuracy"], r["front"]) for r in rows] == [
        ("a", "mixture", 1.0, 50.0, "yes"),
        ("a", "dense twin", 3.0, 75.0, "yes"),
        ("b", "mixture", 2.0, 40.0, "no"),
    ]
    assert (rows[0]["low"], rows[0]["high"], rows[0]["images"]) == (0.5, 2.0, 100)


def test_equal_points_are_both_on_the_front():
    one = {"accuracy": {"test": {"torch": 0.5, "samples": 10}}, "energy": costs(moe=1000.0)}
    assert [row["front"] for row in pareto_rows({"a": one, "b": one})] == ["yes", "yes"]


def test_multiply_accumulates_are_no_synaptic_operations():
    rows = [row for row in pareto_rows({"a": full_metrics()}) if row["cost"] == SYNOPS]
    assert [(r["model"], r["x"]) for r in rows] == [
        ("mixture", pytest.approx(520.2239)),
        ("dense twin", pytest.approx(464.5664)),
    ]


def test_a_single_point_is_no_pareto_plot_and_the_page_says_what_is_needed():
    single = {"accuracy": {"test": {"torch": 0.5, "samples": 10}}, "energy": costs(moe=1.0)}
    assert pareto_plot({"a": single}) is None
    assert "A plot of accuracy against cost: not part of this run" in build_page(make_facts(single))


def test_energies_by_part_in_nanojoules():
    parts = {
        "stem": {"energy_pj_per_sample": band(2000.0)},
        "head": {"energy_pj_per_sample": band(0)},
    }
    rows = energy_rows({"energy": {"t": {"moe": report(1, 1, 1, by_part=parts)}}})
    assert rows == [{"table": "t", "model": "mixture", "part": "stem",
                     "value": 2.0, "low": 1.0, "high": 4.0}]  # fmt: skip


def test_many_experts_are_one_part():
    many = {f"experts.{e}": {"energy_pj_per_sample": band(1.0)} for e in range(MOST_EXPERTS + 1)}
    assert merged_parts(many) == {"all experts": (9.0, 4.5, 18.0)}
    few = dict(list(many.items())[:MOST_EXPERTS])
    assert len(merged_parts(few)) == MOST_EXPERTS


def test_activity_counts_the_neurons_that_spike_at_depth_plus_step():
    facts = make_facts()
    rows = activity_rows(facts)
    spikes = facts.spikes["stem.lif0"]
    own = [r for r in rows if r["population"] == "stem.lif0" and r["image"] == "image 0 (zero)"]
    depth = facts.depth["stem.lif0"]
    assert [row["step"] for row in own] == [depth, depth + 1, depth + 2]
    assert [row["share"] for row in own] == pytest.approx(
        [100 * spikes[0, t].mean() for t in range(STEPS)], abs=0.01
    )
    assert {row["neurons"] for row in own} == {8 * 8 * 4}


def test_router_map_has_a_cell_per_token_and_expert():
    facts = make_facts(top_k=2)
    name = "image 0 (zero)"
    rows = [row for row in router_map_rows(facts) if row["image"] == name]
    assert rows[0]["photo"].startswith("data:image/png;base64,")
    cells = rows[1:]
    assert len(cells) == STEPS * GRID * GRID * 2
    gates, silent = (of[0] for of in (facts.gates(ROUTER), silent_tokens(facts, ROUTER)))
    assert silent[:, 0, 0].all()
    for row in cells:
        y, x = map(int, re.findall(r"\d+", row["token"]))
        assert gates[row["step"], y, x, int(row["expert"].split()[1])]
        assert row["right"] - row["left"] == pytest.approx(1 / GRID / 2)
        assert (row["sent"] == "no spike") == silent[row["step"], y, x]


def test_shares_of_a_class_add_up_to_all_its_choices():
    facts = make_facts()
    rows = specialisation_rows(facts)
    assert {row["class"] for row in rows} == {ALL, "zero", "one", "two"}
    for name, images in ((ALL, SAMPLES), ("zero", 3), ("two", 2)):
        own = [row for row in rows if row["class"] == name]
        assert len(own) == EXPERTS
        assert sum(row["share"] for row in own) == pytest.approx(100, abs=0.03)
        assert {row["images"] for row in own} == {images}
    zero = facts.gates("blocks.0.moe")[np.asarray(facts.labels) == 0].mean((0, 1, 2, 3))
    assert [r["share"] for r in rows if r["class"] == "zero"] == pytest.approx(100 * zero, abs=0.01)


def mapped(cores):
    """A mapping of `cores` cores on tiles of 2x2, each with one population."""
    listed = [
        {
            "part": "stem" if i % 2 else "experts.1",
            "tile": [0, i // 4],
            "neurons": 10 * i,
            "use": {"neurons": 0.1 * i, "in_axons": 0.2},
            "blocks": [{"population": f"p{i}"}],
        }
        for i in range(cores)
    ]
    report = {"chip": "loihi2", "fits": True, "cores_per_tile": 4, "core_list": listed}
    return {"mapping": {"x.program": report}}


def test_every_core_has_its_place_on_the_floor_plan():
    rows = mapping_rows(mapped(7))
    assert [(r["x"], r["y"]) for r in rows] == [
        (0, 0),
        (1, 0),
        (0, 1),
        (1, 1),
        (2, 0),
        (3, 0),
        (2, 1),
    ]
    assert [r["full"] for r in rows] == pytest.approx([0.2, 0.2, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert [r["holds"] for r in rows] == [f"p{i}" for i in range(7)]
    assert {r["part"] for r in rows} == {"stem", "experts.1"}
    assert mapping_plot(make_facts({})) is None
    page = build_page(make_facts(mapped(2)))
    assert "Cores and what they hold" in page
    assert "fits one chip" in page
    large = build_page(make_facts(mapped(400)))
    assert "400 cores: the program&#x27;s metrics.json lists them all" in large


def test_empty_cores_of_every_chip_are_there_too():
    metrics = mapped(7)
    metrics["mapping"]["x.program"] |= {"chips": 2, "tiles": [2, 3]}
    used = mapping_rows(metrics)
    rows = used + empty_rows(metrics, used)
    places = {(r["x"], r["y"]) for r in rows}
    assert len(places) == len(rows) == 2 * 2 * 3 * 4
    assert places == {(x, y) for x in range(12) for y in range(4)}  # side by side
    assert sum(r["part"] == "empty" for r in rows) == 48 - 7


@pytest.mark.parametrize("junk", [None, -4, 0, "a", [1], float("nan"), 10**9])
def test_junk_about_the_chip_is_no_reason_to_stop(junk):
    for key in ("cores_per_tile", "chips", "tiles"):
        metrics = mapped(3)
        metrics["mapping"]["x.program"] |= {"chips": 1, "tiles": [1, 1], key: junk}
        build_page(make_facts(metrics))
    metrics = mapped(1)
    metrics["mapping"]["x.program"]["core_list"][0]["use"] = {"n": junk}
    assert 0 <= mapping_rows(metrics)[0]["full"] <= 1


def test_a_core_of_many_populations_names_a_few():
    metrics = mapped(1)
    core = metrics["mapping"]["x.program"]["core_list"][0]
    core["blocks"] = [{"population": f"p{i // 2}"} for i in range(12)]
    assert mapping_rows(metrics)[0]["holds"] == "p0, p1, p2, p3 and 2 more"


@pytest.mark.parametrize("junk", [None, [], "text", {"tile": [1]}, {"tile": ["a", 2]}, 3])
def test_cores_without_a_place_are_left_out(junk):
    metrics = mapped(2)
    metrics["mapping"]["x.program"]["core_list"].append(junk)
    assert len(mapping_rows(metrics)) == 2


def test_rows_become_a_table_with_escaped_text():
    shown = figures([{"a": "<b>", "x": 1234.5}, {"a": "c", "x": 0.01234}], {"a": "A", "x": "X"})
    assert "The 2 values of this plot" in shown
    assert "&lt;b&gt;" in shown
    assert "1,234.50" in shown
    assert "0.0123" in shown


def test_every_plot_says_what_it_shows_with_its_numbers_of_images():
    page = build_page(make_facts({**full_metrics(), **mapped(1)}))
    specs = [
        json.loads(t) for t in re.findall(r'<script type="application/json">(.*?)</script>', page)
    ]
    titles = [spec["description"].split(". ")[0] for spec in specs]
    assert titles == [
        *("Accuracy", "Accuracy against cost", "Experts chosen per token"),
        *("Which classes go to which expert", "When each population spikes"),
        *("Energy by part of the network", "Cores and what they hold"),
    ]
    for title in titles:
        assert f"<h4>{title}</h4>" in page
        assert f'aria-label="{title}. ' in page
    assert "n = 64 or 359 images" in page
    assert f"n = {SAMPLES} images recorded here" in page


def test_the_library_is_in_the_page_once_however_many_runs():
    facts = make_facts(full_metrics())
    assert build_page(facts).count(library()) == 1
    page = compare_page({"a": facts, "b": replace(facts, metrics={})})
    assert page.count(library()) == 1
    assert len(page) < 3_000_000
    assert len(re.findall(r'id="([^"]*)"', page)) == len(set(re.findall(r'id="([^"]*)"', page)))


def test_one_run_is_not_compared():
    with pytest.raises(ValueError, match="a comparison of 1 runs; use at least 2, or build_page"):
        compare_page({"a": make_facts()})


@pytest.mark.parametrize("junk", [None, [], "text", float("nan"), {"a": None}, [None], -3, 10**40])
def test_malformed_metrics_of_one_run_do_not_hide_the_other(junk):
    bad = make_facts(dict.fromkeys((*full_metrics(), "mapping"), junk))
    page = compare_page(
        {"good": make_facts(full_metrics()), "bad": replace(bad, spikes={}, depth={})}
    )
    assert "97.5 %" in page
    shown = re.sub(r"<(script|code).*?</\1>", "", page.replace(library(), ""), flags=re.DOTALL)
    assert "nan" not in shown, "but for settings, which are shown as they are kept"
