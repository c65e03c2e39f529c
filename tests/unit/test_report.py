"""The report page: self-contained, escaped, complete, honest about what is missing or worse."""

import base64
import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from made_up_run import GRID, SAMPLES, STEPS, full_metrics, make_facts, report

from spikingmoe.report import build_page, overview_png
from spikingmoe.report.activity import measured_load
from spikingmoe.report.findings import findings, main_table
from spikingmoe.report.markup import VOID, table, tag
from spikingmoe.report.pictures import to_rgb, token_map
from spikingmoe.report.plots.scripts import library
from spikingmoe.report.raster import group_of, population_colour
from spikingmoe.report.samples import choose_samples, silent_tokens
from spikingmoe.report.style import GROUP_COLOURS, expert_colour
from spikingmoe.report.wording import count, energy, interval, look, percent

HOSTILE = "<script>alert('x')</script><img src=https://evil.example/x onerror=alert(1)>\"'"


class _Tags(HTMLParser):
    """Elements with their attributes; fails on tags that do not match."""

    def __init__(self):
        super().__init__()
        self.open, self.elements, self.text = [], [], []

    def handle_starttag(self, name, attributes):
        self.elements.append((name, dict(attributes)))
        if name not in VOID | {"wbr"}:
            self.open.append(name)

    def handle_endtag(self, name):
        assert self.open
        assert self.open.pop() == name

    def handle_data(self, data):
        self.text.append(data)


def parsed(page):
    """The page's elements, after a check that they are well formed."""
    tags = _Tags()
    tags.feed(page.replace(library(), ""))
    assert not tags.open
    return tags


SCRIPT = re.compile(r"<script( [^>]*)?>(.*?)</script>", re.DOTALL)


def only_allowed_scripts(page):
    """All that runs is what the policy names by its digest; the rest is JSON."""
    policy = re.search(r'content="(default-src[^"]*)"', page)[1].replace("&#x27;", "'")
    assert "unsafe-eval" not in policy
    allowed = set(re.findall(r"'sha256-([^']*)'", policy))
    assert len(allowed) == 2
    found = set()
    for attributes, text in SCRIPT.findall(page):
        if attributes == ' type="application/json"':
            json.loads(text)
        else:
            assert attributes == ""
            found.add(base64.b64encode(hashlib.sha256(text.encode()).digest()).decode())
    assert found == allowed


@pytest.fixture(scope="module")
def full_page():
    return build_page(make_facts(full_metrics()))


VARIANTS = {
    "top1": {},
    "top2": {"top_k": 2},
    "top3": {"top_k": 3},
    "window": {"hold_step": 1},
    "dense": {"dense": True},
    "events": {"channels": 2},
    "colour": {"channels": 3},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_page_is_self_contained_and_well_formed(variant):
    page = build_page(make_facts(full_metrics(), **VARIANTS[variant]))
    tags = parsed(page)
    assert not {"link", "iframe", "object"} & {name for name, _ in tags.elements}
    only_allowed_scripts(page)
    assert len(page) < 2_200_000
    page = SCRIPT.sub("", page)
    for _, attributes in tags.elements:
        for key, value in attributes.items():
            assert not key.startswith("on")
            if key == "href":
                assert value.startswith(("#", "data:image/png"))
            if key == "src":
                assert value.startswith("data:image/png")
    assert "http:" not in page
    assert "https:" not in page
    assert "@import" not in page
    assert all(u.startswith("data:image/png") for u in re.findall(r"url\((.*?)\)", page))
    assert len(page) < 1_000_000


def test_the_package_needs_neither_torch_nor_hardware():
    code = (
        "import sys, spikingmoe.report\n"
        "print([m for m in ('torch', 'hardware', 'matplotlib.pyplot') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def _poisoned(value):
    """The same structure, each text replaced and each key made hostile where it is data."""
    if isinstance(value, dict):
        return {k: _poisoned(v) for k, v in value.items()} | {HOSTILE: HOSTILE}
    if isinstance(value, list):
        return [_poisoned(v) for v in value]
    return HOSTILE if isinstance(value, str) else value


def test_hostile_text_is_escaped():
    facts = make_facts(_poisoned(full_metrics()))
    renamed = {
        f"{name}{HOSTILE}" if name == "stem.lif0" else name: s for name, s in facts.spikes.items()
    }
    renamed[f"blocks.1.{HOSTILE}.gate"] = facts.gates("blocks.0.moe")
    predictions = {HOSTILE: facts.labels, **facts.predictions}
    page = build_page(
        replace(facts, classes=(HOSTILE,) * 3, spikes=renamed, predictions=predictions)
    )
    tags = parsed(page)
    only_allowed_scripts(page)
    assert not any("onerror" in attributes for _, attributes in tags.elements)
    assert all(a["src"].startswith("data:") for n, a in tags.elements if n == "img")
    assert "&lt;script&gt;" in page


def test_every_number_is_on_the_page(full_page):
    text = " ".join(parsed(full_page).text)
    for number in (
        *("96.9 %", "95.3 %", "93.8 %", "97.5 %", "96.7 %", "98.1 %", "98.6 %"),
        *("987,654 compared, 0 differ", "876,543 compared, 0 differ", "3.1e-14", "3.2e-07"),
        *("520,224", "464,566", "460,096", "0.697 µJ", "1.15 µJ", "0.601 µJ", "2.12 µJ"),
        *("4,321", "4,000", "77", "a paper of 2014", "convention", "communication is ignored"),
        *("arithmetic alone", "memory left out", "12.3 %", "40.0 %", "29 steps", "33 steps"),
        *("1234", "1.26.4", "spikingmoe demo --out there", "41.2 s", "21.0 s", "epoch 1"),
        *("1 of 64 images diverge", "50.0 %", "zero", "wrong"),
    ):
        assert number in text, number


def test_what_is_missing_is_said_with_the_command_that_makes_it():
    page = build_page(replace(make_facts(), spikes={}, depth={}, history=[]))
    text = "".join(parsed(page).text)
    for section, command in (
        ("Results", "demo"),
        ("Images, spikes, experts", "report RUN"),
        ("Energy", "energy RUN"),
        ("Verification", "verify RUN"),
        ("Latency", "verify RUN"),
        ("Training", "train"),
        ("Configuration", "demo"),
    ):
        assert f"{section}: not part of this run. It comes from spikingmoe {command}" in text


@pytest.mark.parametrize(
    "junk", [None, [], "text", float("nan"), {"a": None}, [None, {"b": 1}], True]
)
def test_malformed_metrics_never_raise_and_never_invent(junk):
    metrics = dict.fromkeys(full_metrics(), junk)
    page = build_page(make_facts(metrics))
    parsed(page)
    assert "nan %" not in page
    for outer, values in full_metrics().items():
        if isinstance(values, dict):
            parsed(build_page(make_facts({outer: dict.fromkeys(values, junk)})))


def _places(values, place=()):
    """Every key's place in nested containers."""
    for key in values if isinstance(values, dict) else range(len(values)):
        yield (*place, key)
        if isinstance(values[key], dict | list):
            yield from _places(values[key], (*place, key))


@pytest.mark.parametrize("junk", [None, "text", [None], {"a": None}, -3, 10**40, float("inf")])
def test_a_single_malformed_value_never_raises(junk):
    facts = replace(make_facts(), spikes={}, depth={})
    for *path, last in _places(full_metrics()):
        metrics = full_metrics()
        inner = metrics
        for key in path:
            inner = inner[key]
        inner[last] = junk
        build_page(replace(facts, metrics=metrics))


def test_latency_falls_back_on_the_depths_of_the_populations():
    facts = make_facts()
    text = "".join(parsed(build_page(facts)).text)
    depth = max(facts.depth.values())
    assert f"{depth} steps" in text
    assert f"{depth + STEPS} steps" in text


def test_a_dense_model_has_no_experts_and_says_so():
    text = "".join(parsed(build_page(make_facts(dense=True))).text)
    assert "This model is dense" in text
    assert "no relay cells" in text
    assert "Tokens to experts" not in text


def test_two_experts_share_a_cell_and_silent_tokens_are_dots():
    gates = np.array([[[1, 1, 0], [0, 1, 0]]], dtype=bool)
    silent = np.zeros((1, 2), dtype=bool)
    picture = token_map(gates, silent, "words")
    assert [picture.count(shape) for shape in ("L", "<text")] == [4, 3]
    dotted = token_map(gates, ~silent, "words")
    assert "<text" not in dotted
    assert len(re.findall(r"a[\d.]+ [\d.]+ 0 1 0", dotted)) == 6
    assert "stroke-dasharray" in token_map(np.zeros_like(gates), silent, "words")


def test_window_hold_shows_the_latch_and_tokens_without_an_expert():
    held = make_facts(hold_step=1)
    assert not held.gates("blocks.0.moe")[:, 0].any()
    assert "no gate is open" in build_page(held)
    assert "no gate is open" not in build_page(make_facts())


def test_a_held_decision_is_kept_from_its_step_on():
    kept = "those that keep their choice: "
    assert f"{kept}100.0 %" in build_page(make_facts(hold_step=1))
    moving = make_facts()
    gates = moving.gates("blocks.0.moe")
    share = (gates[:, 1:] == gates[:, :-1]).all(-1).mean()  # top-1: every token has an expert
    assert 0 < share < 1
    assert f"{kept}{percent(share)}" in build_page(moving)
    last = make_facts(hold_step=STEPS - 1)
    assert f"{kept}- (" in build_page(last)


def test_a_model_with_dense_blocks_between_is_not_called_a_mixture_throughout():
    facts = make_facts()
    assert "whose MLPs are mixtures of spiking experts" in build_page(facts)
    between = {**facts.spikes, "blocks.1.mlp.x": facts.spikes["head.x"]}
    assert "partly mixtures" in build_page(replace(facts, spikes=between))


def test_silent_tokens_are_those_whose_neurons_sent_nothing():
    facts = make_facts()
    silent = silent_tokens(facts, "blocks.0.moe")
    assert silent.shape == (SAMPLES, STEPS, GRID, GRID)
    assert silent[:, :, 0, 0].all()
    assert (silent == ~facts.spikes["blocks.0.moe.x"].any(-1)).all()


def test_load_comes_from_the_metrics_or_else_from_the_gates():
    load, source = measured_load(make_facts(full_metrics()), "blocks.0.moe")
    assert load.tolist() == [0.4, 0.3, 0.2, 0.1]
    assert "run recorded" in source
    facts = make_facts()
    load, source = measured_load(facts, "blocks.0.moe")
    assert load == pytest.approx(facts.gates("blocks.0.moe").mean((0, 1, 2, 3)))
    assert f"{SAMPLES} images" in source


def _text(metrics):
    return {f.text: f.kind for f in findings(metrics)}


def test_findings_say_when_the_mixture_is_dearer_or_cheaper():
    metrics = full_metrics()
    said = " ".join(_text(metrics))
    assert "1.12 times the dense twin's 464,566: more work, not less" in said
    assert (
        "the mixture is dearer, 1.16 times as much, at the low, usual and high cost alike" in said
    )
    assert "the dense twin reaches 98.1 % (0.6 points more)" in said
    assert "359 images are too few to tell it from the dense twin" in said
    metrics["energy"]["horowitz45"]["dense"] = report(1e6, 9e5, 1.2e6)
    metrics["synops_per_sample"]["dense"] = 1e6
    said = _text(metrics)
    assert any("is cheaper, 0.70 times" in text and kind == "good" for text, kind in said.items())
    assert not any("more work" in text for text in said)
    metrics["energy"]["horowitz45"]["dense"] = report(1e6, 6e5, 1.2e6)
    assert any("the order turns round" in text for text in _text(metrics))


def test_findings_never_call_different_spikes_the_same():
    metrics = full_metrics()
    (same,) = [f for f in findings(metrics) if "compared" in f.text]
    assert same.kind == "good"
    assert same.text.startswith("Same spikes")
    metrics["verify"]["pairs"][0]["differing"] = 2
    (unequal,) = [f for f in findings(metrics) if "compared" in f.text]
    assert unequal.kind == "bad"
    assert unequal.text.startswith("NOT shown")
    for entry in ({"compared": 5, "differing": 1}, {"compared": 0, "differing": 0}):
        (found,) = findings({"verify": {"fixed": entry}})
        assert found.kind == "bad"
        assert "Same" not in found.text


def test_main_table_holds_bands_of_the_table_that_the_energy_came_from():
    rows = {what: (number, remark) for what, number, remark in main_table(full_metrics())}
    assert rows["estimated energy, mixture"] == ("0.697 µJ", "0.697 µJ to 1.15 µJ")
    assert rows["estimated energy, ReLU twin"] == ("2.12 µJ", "")
    assert rows["spikes, reference and Lava, fixed point"] == (
        "876,543 compared, 0 differ",
        "64 images",
    )
    assert main_table({}) == []


def test_samples_shown_include_wrong_answers_and_distinct_classes():
    facts = make_facts()
    assert choose_samples(facts, 3) == [0, 1, 5]  # 5 is wrong and of class 2
    assert choose_samples(facts) == sorted({*range(5), 5})


def test_numbers_in_words():
    assert [energy(v) for v in (696595, 50, 2.5e9, 0, 170000)] == [
        *("0.697 µJ", "50.0 pJ", "2.50 mJ", "0 pJ", "0.170 µJ")
    ]
    assert energy(42000, like_pj=1000) == "42.0 nJ"
    assert (percent(0.984), count(1234567.8), count(2.5), count(None)) == (
        *("98.4 %", "1,234,568", "2.50", "-"),
    )
    assert interval(0.5, 100) == pytest.approx((0.4038, 0.5962), abs=1e-4)  # Wilson, by hand
    assert look({"a": {"b": 1}}, "a", "b") == 1
    assert look({"a": 3}, "a", "b") is None


def test_markup_escapes_text_and_attributes():
    assert tag("p", "a < b", title='"x"') == '<p title="&quot;x&quot;">a &lt; b</p>'
    assert "&lt;b&gt;" in table(["<b>"], [("x",)])


def test_populations_are_grouped():
    names = (
        "prompt.lif",
        "blocks.1.attention.token",
        "blocks.0.moe.decided",
        "blocks.0.moe.links.0.gate",
        "blocks.0.mlp.x",
        "blocks.0.moe.shared.hidden",
        "downsamples.0.x",
        "q",
    )
    groups = ["prompt", "attention", "router", "router", "experts", "experts", "stem", "other"]
    assert [group_of(n) for n in names] == groups


def test_an_expert_has_its_colour_in_every_link_of_a_chain():
    names = ("blocks.0.moe.experts.2.hidden", "blocks.0.moe.links.0.experts.2.hidden")
    assert [population_colour(n) for n in names] == [expert_colour(2)] * 2
    assert population_colour("blocks.0.moe.shared.hidden") == GROUP_COLOURS["experts"]


def test_images_of_any_channels_become_colours():
    for channels in (1, 2, 3):
        picture = to_rgb(np.ones((2, 2, channels)))
        assert picture.shape == (2, 2, 3)
        assert picture.dtype == np.uint8


@pytest.mark.parametrize("variant", VARIANTS)
def test_overview_is_a_picture_1400_pixels_wide(variant):
    picture = overview_png(make_facts(full_metrics(), **VARIANTS[variant]))
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(picture[16:20], "big") == 1400


def test_overview_without_samples_is_refused():
    with pytest.raises(ValueError, match="no samples were recorded"):
        overview_png(replace(make_facts(), spikes={}))


@pytest.mark.parametrize("prompt", ["none", "feedback"])
def test_overview_of_many_mixtures_without_or_with_own_prompts(prompt):
    facts = make_facts()
    spikes = {
        name.replace("blocks.0", f"blocks.{block}"): values
        for block in range(5)
        for name, values in facts.spikes.items()
    }
    own = spikes.pop("prompt.lif")
    if prompt == "none":
        del spikes["prompt.relay"]
    else:
        spikes["blocks.4.prompt.lif"] = own
    picture = overview_png(replace(facts, spikes=spikes))
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    assert int.from_bytes(picture[16:20], "big") == 1400
