"""What the documentation names is there: commands, options, scripts, files, links, versions."""

from __future__ import annotations

import re
import tomllib
from functools import cache
from pathlib import Path

import pytest
import yaml

from spikingmoe import __version__
from spikingmoe.cli.options import COMMANDS, PARSERS

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "docs/claims").glob("*.md")]
)
PAGES = [page for page in PAGES if page.name != "commands.md"]  # made from the parsers themselves
COMMAND = re.compile(r"^ {4}(?:\S+/)?spikingmoe ([a-z-]+)([^#\n]*)", re.MULTILINE)
INLINE = re.compile(r"`spikingmoe ([a-z]+)([^`]*)`")
SCRIPT = re.compile(r"python ((?:benchmarks|notebooks)/\w+\.py)([^#\n`]*)")
TESTS = re.compile(r"\btests/[\w/]+\.py")
LINK = re.compile(r"\]\((?!https?://|mailto:)([^)#]+)(?:#[^)]*)?\)")
OPTION = re.compile(r"(?<!\S)(--[a-z][a-z-]*)")


@cache
def options_of(command: str) -> set[str]:
    parser = PARSERS[command](prog=f"spikingmoe {command}")
    return {option for action in parser._actions for option in action.option_strings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_and_options_exist(page: Path):
    text = page.read_text(encoding="utf-8")
    for command, rest in COMMAND.findall(text) + INLINE.findall(text):
        if command == "command":
            continue
        assert command in COMMANDS, f"{page.name}: spikingmoe {command}"
        for option in OPTION.findall(rest):
            assert option in options_of(command), f"{page.name}: spikingmoe {command} {option}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_scripts_tests_and_links_exist(page: Path):
    text = page.read_text(encoding="utf-8")
    for script, rest in SCRIPT.findall(text):
        assert (ROOT / script).is_file(), f"{page.name}: {script}"
        source = "".join(
            path.read_text(encoding="utf-8")
            for path in (ROOT / "benchmarks").glob(f"{Path(script).stem.split('_')[0]}*.py")
        )
        for option in OPTION.findall(rest):
            assert f'"{option}"' in source, f"{page.name}: {script} {option}"
    for test in TESTS.findall(text):
        assert (ROOT / test).is_file(), f"{page.name}: {test}"
    for target in LINK.findall(text):
        assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_there_are_commands_to_check():
    found = [match for page in PAGES for match in COMMAND.findall(page.read_text(encoding="utf-8"))]
    assert len(found) > 30


def test_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert project["version"] == citation["version"] == __version__
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["license"] == project["license"] == "MIT"
