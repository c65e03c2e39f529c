"""From the words of a command line to a command and its options, or to one line that refuses them."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import re
from collections.abc import Sequence
from typing import get_args

import jsonargparse

from spikingmoe.cli.options import COMMANDS, PARSERS
from spikingmoe.config import get_recipe, unknown


class UsageError(ValueError):
    """The command line is wrong."""


def parse(argv: list[str]) -> tuple[str, jsonargparse.Namespace]:
    """(command, its options); prints help and exits where that is asked for.

    Raises:
        UsageError: unknown command or option, or a value of the wrong type.
    """
    if not argv or argv[0] in ("-h", "--help"):
        print(_overview())
        raise SystemExit(0 if argv else 2)
    if argv[0] == "--version":
        from spikingmoe import __version__

        print(f"spikingmoe {__version__}")
        raise SystemExit(0)
    command = argv[0]
    if command not in COMMANDS:
        raise UsageError(unknown("command", command, COMMANDS))
    parser = PARSERS[command](
        prog=f"spikingmoe {command}",
        description=f"{COMMANDS[command]}.",
        exit_on_error=False,
        allow_abbrev=False,
        formatter_class=argparse.HelpFormatter,
    )
    silenced = io.StringIO()
    try:
        with contextlib.redirect_stderr(silenced):
            arguments = parser.parse_args(argv[1:])
            if (name := getattr(arguments, "recipe", None)) is not None:
                recipe = get_recipe(name)  # read first, so that all else wins over it
                arguments = parser.parse_args([f"--config={recipe.path}", *argv[1:]])
            return command, arguments
    except (jsonargparse.ArgumentError, argparse.ArgumentError) as error:
        raise UsageError(f"{command}: {_explain(parser, argv[1:], error)}") from None


def _explain(parser: jsonargparse.ArgumentParser, argv: Sequence[str], error: Exception) -> str:
    known = [o for action in parser._actions for o in action.option_strings]
    for word in argv:
        name = word.split("=")[0]
        if name.startswith("--") and name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            return f"unknown option {name}{hint} (see spikingmoe {parser.prog.split()[-1]} --help)"
    wrong = re.match(r'Parser key "(\w+)":.*Got value: (.*)', str(error), re.DOTALL)
    hints = {a.dest: getattr(a, "_typehint", None) for a in parser._actions}
    if wrong and (allowed := _allowed(hints.get(wrong[1]), wrong[2])):
        return f"{wrong[1]}={wrong[2]}; {allowed}"
    hint = ""
    if "unrecognized arguments" in str(error) and any(
        a.nargs in ("*", "+") for a in parser._actions
    ):
        hint = "; names stand right after RUN, before the options"
    return " ".join(str(error).split())[:400] + hint


def _allowed(hint: object, got: str) -> str | None:
    """What an option of this type takes; None for a type that is not known here."""
    if choices := [str(c) for c in get_args(hint) if isinstance(c, str)]:
        close = difflib.get_close_matches(got, choices, n=1)
        return f"use one of {', '.join(choices)}" + (f"; did you mean {close[0]}?" if close else "")
    if hint == tuple[int, ...]:
        return "needs whole numbers in brackets, such as [1,2]"
    named = {int: "a whole number", float: "a number", bool: "true or false"}
    return f"needs {named[hint]}" if hint in named else None  # type: ignore[index]


def _overview() -> str:
    width = max(map(len, COMMANDS))
    lines = ["usage: spikingmoe COMMAND [options]", "", "commands:"]
    lines += [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    lines += ["", "spikingmoe COMMAND --help lists the options of a command."]
    return "\n".join(lines)
