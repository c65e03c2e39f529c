"""The cross-check of the energy model on a tiny model: every row holds, and one that does not is told."""

import importlib.util
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tiny_models import settled_model, tiny_config

from benchmarks import energy_crosscheck
from benchmarks.crosscheck import sanafe as crosscheck_sanafe
from benchmarks.energy_crosscheck import main, measure
from benchmarks.harness import Report
from hardware.energy import Operation

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in energy_crosscheck.OTHERS),
    reason="needs neurobench, spikingjelly and sanafe (`make setup` installs them)",
)
IMAGES = 2
CONFIG = tiny_config()


def binary_images(n):
    shape = (n, 1, CONFIG.image_size, CONFIG.image_size)
    return (torch.rand(shape, generator=torch.Generator().manual_seed(3)) < 0.5).float()


@pytest.fixture(scope="module")
def report():
    found = Report(seeds=[0])
    measure(found, settled_model(CONFIG), binary_images(IMAGES + 1))
    return found


def rows(report, check, unit=None):
    found = {r["what"]: r for r in report.rows if r["check"] == check and unit in (None, r["unit"])}
    assert found
    return found


def test_every_row_holds_and_has_something_to_compare(report):
    assert [r for r in report.rows if not r["holds"]] == []
    assert all(
        rows(report, "brute force")[o]["ours"] > 1000
        for o in (Operation.ACCUMULATE, Operation.CORE_MESSAGE)
    )
    assert rows(report, "SANA-FE")["spikes and logits"]["ours"] > 1000


def test_layers_are_counted_alike_by_both_counters(report):
    for by in ("NeuroBench", "SpikingJelly"):
        found = rows(report, by)
        assert found["stem.convs.1.conv"]["ours"] == found["stem.convs.1.conv"]["theirs"] > 0
        first = found["stem.convs.0.conv"]
        assert first["ours"] == CONFIG.time_steps * first["theirs"] > 0
        assert found["head"]["tolerance"] is None
    experts = rows(report, "SpikingJelly")["blocks.0.moe.experts"]
    assert experts["ours"] == experts["theirs"] > 0


def test_parts_are_told_apart_and_add_up(report):
    for unit in ("synapse pJ", "soma pJ", "network pJ", "messages", "hops"):
        found = rows(report, "SANA-FE", unit)
        parts = {what for what in found if what not in ("all parts", "whole run")}
        assert {"stem", "attention", "router", "experts.0"} <= parts
        for side in ("ours", "theirs", "explained"):
            total = sum(found[part][side] for part in parts)
            assert found["all parts"][side] == pytest.approx(total, rel=1e-9, abs=1e-6)
    somas = rows(report, "SANA-FE", "soma pJ")
    assert {"experts.1", "experts.2", "mlp", "prompt", "head"} <= set(somas)
    registers = somas["registers"]
    assert registers["ours"] == 0 < registers["theirs"]
    # An expert's neurons need no registers and nothing else that differs.
    assert somas["experts.0"]["explained"] == 0


def test_it_writes_its_files_and_a_wrong_price_fails(tmp_path, capsys, monkeypatch):
    trained = SimpleNamespace(
        model=settled_model(CONFIG),
        model_config=CONFIG,
        train_config=SimpleNamespace(seed=0, data="digits-binary"),
    )
    images = binary_images(2)
    test = SimpleNamespace(first=lambda n: SimpleNamespace(images=images[:n]))
    monkeypatch.setattr(energy_crosscheck, "load_run", lambda name: trained)
    monkeypatch.setattr(
        energy_crosscheck, "load_data_for", lambda *args: SimpleNamespace(test=test)
    )
    table = crosscheck_sanafe.get_table("loihi1-fitted")
    cost = table.costs[Operation.STATE_CHANGE]
    dearer = {**table.costs, Operation.STATE_CHANGE: replace(cost, value_pj=cost.value_pj + 0.1)}
    monkeypatch.setattr(crosscheck_sanafe, "get_table", lambda name: replace(table, costs=dearer))
    files = [f"--json={tmp_path / 'out.json'}", f"--markdown={tmp_path / 'out.md'}"]
    assert main(["a-run", "--images", "1", *files]) == 1
    told = capsys.readouterr()
    assert "beyond its tolerance: SANA-FE, experts.0 soma pJ" in told.err
    wrong = [line for line in told.err.splitlines() if line.startswith("beyond")]
    assert all(line.endswith("soma pJ") and "whole run" not in line for line in wrong)
    values = json.loads((tmp_path / "out.json").read_text())
    assert not all(row["holds"] for row in values["rows"])
    assert "| experts.0 | soma pJ |" in (tmp_path / "out.md").read_text()


def test_bad_input_is_one_line(capsys):
    assert main(["no-such-run"]) == 2
    assert "no-such-run" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["no-such-run", "--images", "0"])
