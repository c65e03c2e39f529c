"""Looks that may end the process that looks: made in one of their own, and read as lines of JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from spikingmoe.doctor.check import one_line

MARK = "spikingmoe-doctor:"  # imports may print whatever they like around it


@dataclass(frozen=True)
class Answer:
    """What a child said, by name, and how it ended if not well."""

    found: dict[str, Any]
    failure: str = ""


def tell(name: str, value: object) -> None:
    """Say one thing to the parent."""
    print(f"\n{MARK}{json.dumps([name, value])}", flush=True)


def start(module: str, *words: str) -> subprocess.Popen[str]:
    """`python -m module words...`, with what it says kept for `finish`."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )


def finish(child: subprocess.Popen[str], seconds: float) -> Answer:
    """What the child said within `seconds`; it is ended then."""
    failure = ""
    try:
        out, err = child.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        child.kill()
        out, err = child.communicate()
        failure = f"no answer within {seconds:g} s"
    if not failure and child.returncode != 0:
        last = one_line((err.strip().splitlines() or ["no message"])[-1])
        ended = f"signal {-child.returncode}" if child.returncode < 0 else "an error"
        failure = f"ended by {ended}: {last}"
    return Answer(_read(out.splitlines()), failure)


def _read(lines: Sequence[str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for line in lines:
        if line.startswith(MARK):
            name, value = json.loads(line.removeprefix(MARK))
            found[name] = value
    return found
