"""Python and the packages: their versions, and whether they can be imported."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata

from spikingmoe.doctor.check import Check
from spikingmoe.doctor.child import Answer
from spikingmoe.doctor.requirements import CORE, DEV, REQUIREMENTS, Requirement, is_within

TOPIC, OPTIONAL = "packages", "optional parts"
OLDEST, NEWEST = (3, 11), (3, 12)
VersionOf = Callable[[str], str | None]


def installed_version(name: str) -> str | None:
    """The version of a distribution, None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def python_check(version: tuple[int, int] = sys.version_info[:2]) -> Check:
    """Whether this Python is one that the package is made for."""
    good = OLDEST <= version <= NEWEST
    return Check(
        topic=TOPIC,
        name="python",
        state="ok" if good else "warning" if version > NEWEST else "missing",
        found=platform.python_version(),
        cost="" if good else "not tested with this version",
        fix="" if good else "make setup PYTHON=python3.11",
        needed=True,
    )


def package_checks(
    imported: Mapping[str, str | None], version_of: VersionOf = installed_version
) -> Iterator[Check]:
    """One check per package, the development tools together.

    Args:
        imported: by module that was tried, its error, or None if it could be imported.
    """
    for requirement in REQUIREMENTS:
        if requirement.part != DEV:
            yield _package(requirement, imported, version_of(requirement.name))
    yield _development(imported, version_of)


def _package(
    requirement: Requirement, imported: Mapping[str, str | None], version: str | None
) -> Check:
    error = imported.get(requirement.module)
    wants = f" (needs {requirement.versions})" if requirement.versions else ""
    state, found, cost, fix = "ok", version or "not installed", requirement.cost, requirement.fix
    if version is None:
        state, found = "missing", f"not installed{wants}"
    elif error is not None:
        state, found = "missing", f"{version}, but its import fails: {error}"
        fix = f"{requirement.fix} --force-reinstall"
    elif not is_within(version, requirement.versions):
        state, found, cost = "warning", f"{version}{wants}", "not tested with this version"
    else:
        cost = fix = ""
    return Check(
        topic=TOPIC if requirement.is_needed else OPTIONAL,
        name=requirement.name if requirement.part == CORE else _with_part(requirement),
        state=state,
        found=found,
        cost=cost,
        fix=fix,
        needed=requirement.is_needed,
    )


def _with_part(requirement: Requirement) -> str:
    same = requirement.part == requirement.name
    return requirement.name if same else f"{requirement.name} [{requirement.part}]"


def _development(imported: Mapping[str, str | None], version_of: VersionOf) -> Check:
    checks = [_package(r, imported, version_of(r.name)) for r in REQUIREMENTS if r.part == DEV]
    bad = [f"{c.name.split()[0]} {c.found}" for c in checks if c.state != "ok"]
    worst = "missing" if any(c.state == "missing" for c in checks) else "warning"
    return Check(
        topic=OPTIONAL,
        name="development tools [dev]",
        state=worst if bad else "ok",
        found="; ".join(bad) or f"all {len(checks)}",
        cost="no tests, lint or types" if bad else "",
        fix="make setup" if bad else "",
    )


def read_imports(answer: Answer, modules: list[str]) -> dict[str, str | None]:
    """By module its error, or None; one whose import ended the process is told by its last word."""
    found: dict[str, str | None] = {}
    for module in modules:
        if f"import {module}" in answer.found:
            found[module] = answer.found[f"import {module}"]
        elif f"begin {module}" in answer.found:
            found[module] = answer.failure or "its import ended the process"
    return found


def modules_to_try(*, thorough: bool) -> tuple[list[str], list[str]]:
    """(Lava's, the others'), which are imported by two processes: Lava's runs have no torch either."""
    chosen = [r for r in REQUIREMENTS if (thorough or not r.slow) and r.part != DEV]
    present = [r for r in chosen if installed_version(r.name) is not None]
    lava = [r.module for r in present if r.part == "lava"]
    return lava, [r.module for r in present if r.part != "lava"]
