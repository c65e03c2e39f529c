"""`spikingmoe doctor`; runs on the standard library alone, since any package may be what is broken."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from spikingmoe.doctor import Check, examine
from spikingmoe.doctor.check import one_line


def run(args: argparse.Namespace) -> int:
    """Print the table; exit code 0 if the demo can run, 1 if not."""
    checks = examine(data_dir=args.data_dir or "", thorough=args.thorough)
    print(render(checks, shutil.get_terminal_size((110, 24)).columns))
    stopping = [check for check in checks if check.stops_the_demo]
    if args.json:
        values = {"demo_can_run": not stopping, "checks": [asdict(check) for check in checks]}
        Path(args.json).parent.mkdir(parents=True, exist_ok=True)
        # Not by `hardware.files`, which needs NumPy.
        Path(args.json).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
        print(f"\njson: {args.json}")
    print(f"\n{verdict(checks)}")
    return 1 if stopping else 0


def run_bare(argv: Sequence[str], broken: BaseException) -> int:
    """The same where the command line's own packages cannot be imported."""
    parser = argparse.ArgumentParser(prog="spikingmoe doctor", allow_abbrev=False)
    parser.add_argument("--data-dir", default=None)
    parser.add_argument("--thorough", action="store_true")
    parser.add_argument("--json", default=None)
    args = parser.parse_args(argv)
    print(f"the command line itself cannot start: {one_line(broken)}\n", file=sys.stderr)
    try:
        return run(args) or 1
    except OSError as error:
        print(f"spikingmoe: {one_line(error)}", file=sys.stderr)
        return 2


def render(checks: Sequence[Check], width: int) -> str:
    """The table: state, name, what was found; below a thing that is not ok its cost and its cure."""
    name_width = max((len(check.name) for check in checks), default=0)
    indent = " " * (9 + name_width + 2)
    lines: list[str] = []
    for topic in dict.fromkeys(check.topic for check in checks):
        lines += ["", topic] if lines else [topic]
        for check in checks:
            if check.topic != topic:
                continue
            start = f"{check.state:<9}{check.name:<{name_width}}  "
            lines += _wrapped(check.found, start, indent, width)
            if check.cost:
                lines += _wrapped(f"costs: {check.cost}", indent, indent + "  ", width)
            if check.fix:
                mend = check.fix if check.state == "ok" else f"mend: {check.fix}"
                lines += _wrapped(mend, indent, indent + "  ", width)
    return "\n".join(lines)


def verdict(checks: Sequence[Check]) -> str:
    """The last line: whether the demo can run, and what stops it."""
    stopping = [check.name for check in checks if check.stops_the_demo]
    if stopping:
        return f"spikingmoe demo CANNOT run: {', '.join(stopping)}"
    warned = sum(check.state != "ok" for check in checks)
    rest = f"; {warned} optional things are missing or worth a look" if warned else ""
    return f"spikingmoe demo can run{rest}"


def _wrapped(text: str, start: str, indent: str, width: int) -> list[str]:
    return textwrap.wrap(
        text, max(width, len(indent) + 30), initial_indent=start, subsequent_indent=indent,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
