"""`spikingmoe COMMAND ...`: parse, dispatch, and turn every refusal into one line."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from hardware.jobs.interpreter import choose_matrix_kernels

BAD_INPUT = 2


class Terminated(KeyboardInterrupt):
    """SIGTERM, treated as SIGINT."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (0 good, 1 a check failed, 2 bad input, 130/143 stopped)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    choose_matrix_kernels()  # before NumPy is loaded
    try:
        from spikingmoe.cli.command_line import UsageError, parse
    except Exception as error:  # a package that the command line is made of is missing or broken
        return _without_parser(argv, error)
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        command, arguments = parse(argv)
        module = importlib.import_module(f"spikingmoe.cli.{command}")
        return module.run(arguments)
    except UsageError as error:
        return _refuse(str(error), BAD_INPUT)
    except KeyboardInterrupt as stop:
        return _stopped(stop, argv)
    except Exception as error:
        stop = _interrupt_behind(error)  # an interrupted import wraps what interrupted it
        if stop is not None:
            return _stopped(stop, argv)
        if os.environ.get("SPIKINGMOE_TRACEBACK") or not _is_refusal(error):
            raise
        return _refuse(" ".join(str(error).split()) or "out of memory", BAD_INPUT)
    finally:
        signal.signal(signal.SIGTERM, previous)


def _without_parser(argv: list[str], error: Exception) -> int:
    if argv[:1] == ["doctor"]:
        from spikingmoe.cli.doctor import run_bare

        return run_bare(argv[1:], error)
    return _refuse(f"cannot start: {error}; `spikingmoe doctor` says what is missing", BAD_INPUT)


def _is_refusal(error: Exception) -> bool:
    """Errors about input, files or memory; anything else is our own mistake and keeps its traceback."""
    refusals = (ValueError, TypeError, OSError, ImportError, MemoryError)
    return isinstance(error, refusals) or "allocate memory" in str(error)


def _interrupt_behind(error: BaseException) -> KeyboardInterrupt | None:
    seen: BaseException | None = error
    while seen is not None and not isinstance(seen, KeyboardInterrupt):
        seen = seen.__cause__ or seen.__context__
    return seen


def _stopped(stop: KeyboardInterrupt, argv: Sequence[str]) -> int:
    terminated = isinstance(stop, Terminated)
    command = argv[0] if argv else ""
    hint = "; --resume goes on" if command in ("train", "demo") else ""
    hint = "; the same again goes on" if command == "download" else hint
    code = 128 + (signal.SIGTERM if terminated else signal.SIGINT)
    return _refuse(("terminated" if terminated else "interrupted") + hint, code)


def _refuse(message: str, code: int) -> int:
    print(f"spikingmoe: {message}", file=sys.stderr)
    return code


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise Terminated


if __name__ == "__main__":
    sys.exit(main())
