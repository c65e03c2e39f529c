"""The benchmark of the residual forms on a tiny model: exactness first, then costs that belong together."""

import json

import pytest
from tiny_models import settled_model, tiny_config, tiny_images

from benchmarks import residual_strategies
from benchmarks.harness import Report
from benchmarks.residual_strategies import FORMS, Subject, check_equal, main, markdown, measure
from hardware.lowering import lower
from hardware.simulate import simulate

CONFIG = tiny_config(depth=2)


@pytest.fixture(scope="module")
def report():
    found = Report(seeds=[0])
    subject = Subject("tiny", settled_model(CONFIG), tiny_images(CONFIG, 4), "not trained")
    measure(found, subject, seed=0)
    return found


def test_a_row_per_form_with_what_each_saves(report):
    relay, unrolled = report.rows
    assert [row["residual"] for row in report.rows] == list(FORMS)
    assert all(row["n"] == 4 and row["differing"] == 0 for row in report.rows)
    assert all(row["spikes_compared_with_torch"] > 1000 for row in report.rows)
    # A stream is 3 x 3 x 8 neurons; the sum after the stem and after each of two branches of two blocks.
    assert relay["neurons"] - unrolled["neurons"] == 5 * 72
    assert relay["relays"] - unrolled["relays"] == 5
    assert relay["spikes_per_image"] == unrolled["spikes_per_image"]
    assert relay["graded_per_image"] > unrolled["graded_per_image"]
    assert relay["synapses"] < unrolled["synapses"]
    assert relay["accumulates_per_image"] < unrolled["accumulates_per_image"]
    ratio = report.ratios["tiny_relay_vs_unrolled_synapses"]
    assert ratio == unrolled["synapses"] / relay["synapses"]


def test_the_table_says_what_was_measured(report):
    text = markdown(report)
    assert "| tiny | relay | 4 |" in text
    assert "| tiny | unrolled | 4 |" in text
    assert f"{report.rows[1]['synapses']:,}" in text


def test_forms_that_differ_stop_it():
    graph, images = lower(settled_model(CONFIG)), tiny_images(CONFIG, 2)
    left, right = simulate(graph, images), simulate(graph, images)
    right.spikes["head.x"][0, 0, 0, 0, 0] ^= True
    with pytest.raises(SystemExit, match=r"population 'head\.x': the two forms"):
        check_equal(left, right, graph)
    subject = Subject("tiny", settled_model(CONFIG), images, "not trained")
    with pytest.raises(SystemExit, match="tiny, relay: not what torch sends: population 'head"):
        residual_strategies.check_against_torch(subject, graph, right, "relay")
    assert residual_strategies.check_against_torch(subject, graph, left, "relay") > 1000


def test_it_writes_its_files_and_refuses_bad_input(tmp_path, capsys, monkeypatch):
    subject = Subject("tiny", settled_model(CONFIG), tiny_images(CONFIG, 2), "not trained")
    monkeypatch.setattr(residual_strategies, "load_subject", lambda name, args: subject)
    files = [f"--json={tmp_path / 'out.json'}", f"--markdown={tmp_path / 'out.md'}"]
    assert main(["--models", "tiny", *files]) == 0
    assert "synops / image" in capsys.readouterr().out
    assert len(json.loads((tmp_path / "out.json").read_text())["rows"]) == 2
    assert (tmp_path / "out.md").read_text().startswith("# Residual streams")
    monkeypatch.undo()
    assert main(["--models", "no-such-model"]) == 2
    assert "no-such-model" in capsys.readouterr().err
