"""Cost tables of one's own: what a file gives, and every way to get it wrong, by name."""

import re

import numpy as np
import pytest
import yaml

from hardware.energy import Cost, Operation, price, read_table
from hardware.energy.operations import BASIC, UNPLACED
from hardware.energy.tally import OperationCounts, Tally
from hardware.errors import HardwareError


def own(**changes):
    """The values of a good file, with some exchanged (None: left out)."""
    cost = {"value": 2, "low": 1.5, "high": 4, "grade": "measured", "source": "lab book"}
    values = {
        "name": "mine",
        "title": "My chip",
        "boundary": "all of it",
        "unit": "pJ",
        "costs": {str(o): dict(cost) for o in BASIC if o is not Operation.MEMBRANE_WRITE},
        "not_priced": {"membrane_writes": "inside the read"},
    }
    return {k: v for k, v in (values | changes).items() if v is not None}


def with_cost(**changes):
    """The same with one cost changed."""
    values = own()
    entry = values["costs"]["accumulates"] | changes
    values["costs"]["accumulates"] = {k: v for k, v in entry.items() if v is not None}
    return values


@pytest.fixture
def write(tmp_path):
    def to_file(content):
        path = tmp_path / "mine.yaml"
        text = content if isinstance(content, str) else yaml.safe_dump(content)
        path.write_text(text)
        return path

    return to_file


def test_a_file_gives_a_table(write):
    table = read_table(
        write(own(unit="fJ", caveats=["one sample"], prices_ann=True, chip="loihi1"))
    )
    assert (table.name, table.title, table.boundary) == ("mine", "My chip", "all of it")
    assert (table.caveats, table.prices_ann, table.chip) == (("one sample",), True, "loihi1")
    cost = table.costs[Operation.SPIKE]
    assert isinstance(cost, Cost)
    assert [cost.value_pj, cost.low_pj, cost.high_pj] == [0.002, 0.0015, 0.004]
    assert (cost.grade, cost.source) == ("measured", "lab book")
    assert table.not_priced == {Operation.MEMBRANE_WRITE: "inside the read"}


def test_a_cost_may_have_its_own_unit_and_no_band(write):
    table = read_table(write(with_cost(unit="nJ", low=None, high=None, note="one chip")))
    cost = table.costs[Operation.ACCUMULATE]
    assert isinstance(cost, Cost)
    assert [cost.value_pj, cost.low_pj, cost.high_pj] == [2000, 2000, 2000]
    assert cost.note == "one chip"
    assert table.static is None


def test_finer_operations_replace_basic_ones(write):
    values = own()
    split = {f"accumulates_{k}": dict(values["costs"]["accumulates"]) for k in ("dense", "sparse")}
    del values["costs"]["accumulates"]
    values["costs"] |= split
    values["not_priced"]["accumulates"] = "by kind"
    assert Operation.ACCUMULATE_DENSE in read_table(write(values)).costs
    values["costs"]["accumulates"] = dict(split["accumulates_dense"])
    del values["not_priced"]["accumulates"]
    with pytest.raises(HardwareError, match="accumulates_dense is part of accumulates; price one"):
        read_table(write(values))


def test_counts_times_the_file_are_the_energy(write):
    static = {"power_mw": {"value": 10, "low": 8, "high": 12}, "step_ns": 100,
              "grade": "measured", "source": "lab book"}  # fmt: skip
    tally = Tally(where="a", part="stem", operations=dict.fromkeys(UNPLACED, 6))
    counts = OperationCounts(samples=3, time_steps=4, synapses=(tally,), populations=())
    report = price(counts, read_table(write(own(static=static))))
    band = report.energy_pj_per_sample
    operations = len(BASIC) - 1
    assert np.allclose([band.value, band.low, band.high], [operations * 2 * c for c in (2, 1.5, 4)])
    assert report.static is not None
    band = report.static.energy_pj_per_sample  # mW times ns are pJ; 4 steps, one chip
    assert [band.value, band.low, band.high] == [4000, 3200, 4800]
    assert report.static.latency_ns.value == 400
    assert report.static.chips == 1


without = {"costs": {k: v for k, v in own()["costs"].items() if k != "spikes_sent"}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (own(costs=without["costs"]), "costs: spikes_sent missing; give each a cost, or a reason"),
        (own(costs=own()["costs"] | {"spike_sent": {}}), "costs: 'spike_sent' is unknown; did you"),
        (own(not_priced={"loops": "x"}), "not_priced: 'loops' is unknown; use accumulates, multi"),
        (own(not_priced={"spikes_sent": "x", "membrane_writes": "y"}), "spikes_sent must stand in"),
        (own(not_priced={"membrane_writes": ""}), "not_priced.membrane_writes: ''; write some words"),
        (own(unit=None), "the file: has no unit; it needs name, title, boundary, unit, costs"),
        (own(unit="J"), "unit: 'J'; use one of fJ, pJ, nJ"),
        (own(unit=["pJ"]), "unit: ['pJ']; use one of fJ"),
        (with_cost(unit="pj"), "costs.accumulates.unit: 'pj'; use one of fJ, pJ, nJ"),
        (with_cost(source=None), "costs.accumulates: has no source; it needs value, source, grade"),
        (with_cost(source=" "), "costs.accumulates.source: ' '; write some words"),
        (with_cost(grade="guess"), "costs.accumulates.grade: 'guess'; use one of measured, fitted"),
        (with_cost(value=None), "costs.accumulates: has no value"),
        (with_cost(value=-1), "costs.accumulates.value: -1; use a number from 0 to 1e+15"),
        (with_cost(low=-0.5), "costs.accumulates.low: -0.5; use a number from 0"),
        (with_cost(value=float("nan")), "costs.accumulates.value: nan; use a number from 0"),
        (with_cost(high=float("inf")), "costs.accumulates.high: inf; use a number from 0"),
        (with_cost(high=10**400), "costs.accumulates.high: 1000"),
        (with_cost(value=True), "costs.accumulates.value: True is no number"),
        (with_cost(value="1e-3"), "'1e-3' is no number (YAML wants a point and a sign"),
        (with_cost(value="2 pJ"), "costs.accumulates.value: '2 pJ' is no number"),
        (with_cost(low=3), "costs.accumulates: value 2.0 with band 3.0 to 4.0; needs low <= value"),
        (with_cost(high=1), "costs.accumulates: value 2.0 with band 1.5 to 1.0; needs low <="),
        (with_cost(band=3), "costs.accumulates: 'band' is unknown"),
        (own(costs=[1, 2]), "costs: [1, 2]; use keys with values"),
        (own(name="horowitz45"), "name: 'horowitz45' is a table that comes with the package"),
        (own(name=7), "name: 7; write some words"),
        (own(chip="loihi3"), "chip: 'loihi3'; use one of loihi1, loihi2, or leave it out"),
        (own(chip=["loihi1"]), "chip: ['loihi1']; use one of loihi1"),
        (own(prices_ann="yes"), "prices_ann: 'yes'; use true or false"),
        (own(caveats="none"), "caveats: 'none'; use a list of sentences"),
        (own(colour="red"), "the file: 'colour' is unknown"),
        (own(static={"power_mw": 1}), "static: has no step_ns; it needs power_mw, step_ns"),
        (own(costs=own()["costs"] | {"core_messages": own()["costs"]["spikes_sent"]}),
         "core_messages depends on where neurons lie; name the chip"),
        ("", "the file: None; use keys with values"),
        ("just words", "the file: 'just words'; use keys with values"),
        ("a: &x [1]\nb: *x", "is no YAML that can be read: references (*name) are not allowed"),
        ("unit: pJ\nunit: nJ", "is no YAML that can be read: 'unit' stands twice in one place"),
        ("a: [1, 2", "is no YAML that can be read"),
        ("!!python/object/apply:os.getcwd []", "is no YAML that can be read"),
        ("a: 2001-99-99", "is no YAML that can be read: month must be in 1..12"),
        ("[" * 5000, "is no YAML that can be read"),
        ("a: " + "9" * 5000, "is no YAML that can be read"),
        ("unit: 0x" + "f" * 5000, "the file: has no name"),
        ("? 0x" + "f" * 5000 + "\n: 1", "the file: an endless number is unknown"),
        ("? [a, b]\n: 1", "is no YAML that can be read"),
        ("x" * (1 << 20) + "x", "larger than 1,048,576 bytes; a cost table is a short text"),
    ],
)  # fmt: skip
def test_bad_files_are_refused_by_name(write, content, message):
    path = write(content)
    with pytest.raises(HardwareError, match=re.escape(message)) as refusal:
        read_table(path)
    assert str(refusal.value).startswith(f"{path}: ")
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 700


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(HardwareError, match=r"none\.yaml: cannot read: No such file"):
        read_table(tmp_path / "none.yaml")
    with pytest.raises(HardwareError, match="cannot read: Is a directory"):
        read_table(tmp_path)
    path = tmp_path / "binary.yaml"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(HardwareError, match="is no text in UTF-8"):
        read_table(path)


def test_damaged_files_are_read_or_refused(write):
    """Bytes knocked out of a good file: a table or one line, never another error."""
    rng = np.random.default_rng(0)
    text = yaml.safe_dump(own(static={"power_mw": 1, "step_ns": 2, "grade": "measured",
                                      "source": "s"}))  # fmt: skip
    outcomes = set()
    for _ in range(60):
        start = int(rng.integers(len(text)))
        swap = rng.choice(["", "{", ":", "\n", "- ", "&a ", "*a", "!!x ", "\t", "1.5"])
        path = write(text[:start] + str(swap) + text[start + int(rng.integers(4)) :])
        outcomes.add(outcome(path))
    assert outcomes == {"read", "refused"}


def outcome(path):
    """Whether it was read, or refused in one line; anything else is raised."""
    try:
        read_table(path)
    except HardwareError as error:
        return "refused" if "\n" not in str(error) else str(error)
    return "read"
