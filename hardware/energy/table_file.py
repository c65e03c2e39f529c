"""Cost tables of one's own, from a YAML file.

    name: my-chip                       # of the table in reports
    title: My chip, measured at 0.8 V
    boundary: synapses and neurons; without memory and static power
    unit: pJ                            # or fJ, nJ: of every cost below
    costs:
      accumulates: {value: 12.7, low: 12.0, high: 14.0, grade: measured, source: "Lab book, p. 7"}
      ...
    not_priced:
      membrane_reads: inside the neuron update
      ...

Every basic operation (`hardware.energy.operations.BASIC`) stands in exactly one of the two. A cost
without low and high is a band of one point; `note` says what the band means. Optional: `caveats` (a
list), `chip` (loihi1 or loihi2) for prices of messages between cores, `prices_ann` (true or false),
and `static: {power_mw: ..., step_ns: ..., grade: ..., source: ...}` where each of the two is a number or
{value, low, high}.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Hashable, Mapping
from pathlib import Path
from typing import Any, cast, get_args

import yaml

from hardware.energy.band import Band
from hardware.energy.costs import Cost, CostTable, Grade, StaticPower
from hardware.energy.operations import BASIC, Operation
from hardware.energy.tables import COST_TABLES
from hardware.errors import FileError, HardwareError
from hardware.loihi.chips import CHIPS

UNITS = {"fJ": 1e-3, "pJ": 1.0, "nJ": 1e3}  # in picojoules
MOST_BYTES = 1 << 20
MOST_NUMBER = 1e15  # sums stay finite
MOST_SHOWN = 60  # characters of a wrong value in a message
KEYS = ("name", "title", "boundary", "unit", "costs")
OPTIONAL_KEYS = ("not_priced", "caveats", "chip", "prices_ann", "static")
COST_KEYS = ("value", "low", "high", "source", "grade", "note", "unit")
STATIC_KEYS = ("power_mw", "step_ns", "source", "grade", "note")


def read_table(path: str | Path) -> CostTable:
    """The cost table in a YAML file.

    Raises:
        FileError: for a file that cannot be read or is not YAML.
        HardwareError: naming the file, the place and what is allowed, for anything that a table must
            not have: an unknown, missing or doubled operation, a cost that is negative, not finite or
            no number, a band out of order, no unit, no source, an unknown grade.
    """
    values = _load(Path(path))
    try:
        return _table(values)
    except HardwareError as error:
        raise HardwareError(f"{path}: {error}") from None


def _load(path: Path) -> object:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise FileError(f"{path}: cannot read: {error.strerror or error}") from None
    if len(content) > MOST_BYTES:
        raise FileError(f"{path}: larger than {MOST_BYTES:,} bytes; a cost table is a short text")
    try:
        return yaml.load(content.decode("utf-8"), Loader=_Loader)
    except UnicodeDecodeError:
        raise FileError(f"{path}: is no text in UTF-8; a cost table is a YAML file") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        words = " ".join(str(error).split()) or type(error).__name__
        raise FileError(f"{path}: is no YAML that can be read: {words[:200]}") from None


class _Loader(yaml.SafeLoader):
    """Plain data; without references, which could make a short text huge, and without doubled keys."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("references (*name) are not allowed; write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        doubled = [key for number, key in enumerate(keys) if key in keys[:number]]
        if doubled:
            raise yaml.YAMLError(f"{_shown(doubled[0])} stands twice in one place")
        return super().construct_mapping(node, deep)


def _table(values: object) -> CostTable:
    top = _mapping(values, "the file", KEYS, OPTIONAL_KEYS)
    name = _text(top["name"], "name")
    if name in COST_TABLES:
        raise HardwareError(f"name: '{name}' is a table that comes with the package; use another")
    unit = _unit(top["unit"], "unit")
    listed = _operations(top["costs"], "costs")
    reasons = _operations(top.get("not_priced", {}), "not_priced")
    missing = [o for o in BASIC if o not in listed and o not in reasons]
    if missing:
        raise HardwareError(
            f"costs: {', '.join(missing)} missing; give each a cost, or a reason under not_priced"
        )
    chip = top.get("chip")
    if chip is not None and (not isinstance(chip, str) or chip not in CHIPS):
        raise HardwareError(f"chip: {_shown(chip)}; use one of {', '.join(CHIPS)}, or leave it out")
    prices_ann = top.get("prices_ann", False)
    if not isinstance(prices_ann, bool):
        raise HardwareError(f"prices_ann: {_shown(prices_ann)}; use true or false")
    caveats = top.get("caveats", [])
    if not isinstance(caveats, list):
        raise HardwareError(f"caveats: {_shown(caveats)}; use a list of sentences")
    return CostTable(
        name=name,
        title=_text(top["title"], "title"),
        boundary=_text(top["boundary"], "boundary"),
        costs={o: _cost(entry, f"costs.{o}", unit) for o, entry in listed.items()},
        not_priced={o: _text(reason, f"not_priced.{o}") for o, reason in reasons.items()},
        caveats=tuple(_text(c, f"caveats[{i}]") for i, c in enumerate(caveats)),
        prices_ann=prices_ann,
        chip=chip,
        static=_static(top["static"]) if "static" in top else None,
    )


def _cost(entry: object, where: str, unit: float) -> Cost:
    found = _mapping(entry, where, ("value", "source", "grade"), COST_KEYS)
    if "unit" in found:
        unit = _unit(found["unit"], f"{where}.unit")
    band = _band(found, where)
    source, grade, note = _origin(found, where)
    return Cost(
        value_pj=band.value * unit,
        low_pj=band.low * unit,
        high_pj=band.high * unit,
        source=source,
        grade=grade,
        note=note,
    )


def _static(entry: object) -> StaticPower:
    found = _mapping(entry, "static", ("power_mw", "step_ns", "source", "grade"), STATIC_KEYS)
    bands = []
    for key in ("power_mw", "step_ns"):
        where, value = f"static.{key}", found[key]
        if not isinstance(value, dict):
            value = {"value": value}
        bands.append(_band(_mapping(value, where, ("value",), ("low", "high")), where))
    source, grade, note = _origin(found, "static")
    return StaticPower(power_mw=bands[0], step_ns=bands[1], source=source, grade=grade, note=note)


def _band(found: Mapping[str, object], where: str) -> Band:
    value = _number(found["value"], f"{where}.value")
    low = _number(found.get("low", value), f"{where}.low")
    high = _number(found.get("high", value), f"{where}.high")
    if not low <= value <= high:
        raise HardwareError(
            f"{where}: value {value} with band {low} to {high}; needs low <= value <= high"
        )
    return Band(value=value, low=low, high=high)


def _origin(found: Mapping[str, object], where: str) -> tuple[str, Grade, str]:
    grade = found["grade"]
    if grade not in get_args(Grade):
        raise HardwareError(
            f"{where}.grade: {_shown(grade)}; use one of {', '.join(get_args(Grade))}"
        )
    note = _text(found["note"], f"{where}.note") if "note" in found else "as given"
    return _text(found["source"], f"{where}.source"), cast(Grade, grade), note


def _operations(values: object, where: str) -> dict[Operation, object]:
    known = [str(operation) for operation in Operation]
    return {Operation(k): v for k, v in _mapping(values, where, (), known).items()}


def _mapping(
    values: object, where: str, needed: Collection[str], allowed: Collection[str]
) -> dict[str, object]:
    if not isinstance(values, dict):
        raise HardwareError(f"{where}: {_shown(values)}; use keys with values, `key: value`")
    every = [*needed, *(key for key in allowed if key not in needed)]
    for key in values:
        if key not in every:
            close = difflib.get_close_matches(_shown(key).strip("'"), every, n=1)
            hint = f"; did you mean '{close[0]}'?" if close else f"; use {', '.join(every)}"
            raise HardwareError(f"{where}: {_shown(key)} is unknown{hint}")
    for key in needed:
        if key not in values:
            raise HardwareError(f"{where}: has no {key}; it needs {', '.join(needed)}")
    return cast(dict[str, object], values)


def _unit(value: object, where: str) -> float:
    if not isinstance(value, str) or value not in UNITS:
        raise HardwareError(f"{where}: {_shown(value)}; use one of {', '.join(UNITS)}")
    return UNITS[value]


def _number(value: object, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        hint = " (YAML wants a point and a sign in exponents: 1.0e-3)" if _is_number(value) else ""
        raise HardwareError(f"{where}: {_shown(value)} is no number{hint}")
    if not 0 <= value <= MOST_NUMBER:
        raise HardwareError(f"{where}: {_shown(value)}; use a number from 0 to {MOST_NUMBER:g}")
    return float(value)


def _is_number(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        float(value)
    except ValueError:
        return False
    return True


def _text(value: object, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise HardwareError(f"{where}: {_shown(value)}; write some words")
    return " ".join(value.split())


def _shown(value: object) -> str:
    """A value in a message: on one line, and short."""
    try:
        text = " ".join(repr(value).split())
    except ValueError:  # an integer of thousands of digits has no text
        return "an endless number"
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."
