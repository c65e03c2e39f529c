"""`spikingmoe COMMAND ...`: parse, dispatch, and turn every refusal into one line."""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

BAD_INPUT, FAILED = 2, 1


class Terminated(KeyboardInterrupt):
    """SIGTERM, treated as SIGINT."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code (0 good, 1 a check failed, 2 bad input, 130/143 stopped)."""
    from spikingmoe.cli.options import UsageError, parse

    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        command, arguments = parse(list(sys.argv[1:] if argv is None else argv))
        module = importlib.import_module(f"spikingmoe.cli.{command}")
        return module.run(arguments)
    except UsageError as error:
        return _refuse(str(error), BAD_INPUT)
    except Terminated:
        return _refuse("terminated; train again with --resume to go on", 128 + signal.SIGTERM)
    except KeyboardInterrupt:
        return _refuse("interrupted; train again with --resume to go on", 128 + signal.SIGINT)
    except (ValueError, TypeError, OSError, ImportError) as error:
        if os.environ.get("SPIKINGMOE_TRACEBACK"):
            raise
        return _refuse(" ".join(str(error).split()), BAD_INPUT)
    finally:
        signal.signal(signal.SIGTERM, previous)


def _refuse(message: str, code: int) -> int:
    print(f"spikingmoe: {message}", file=sys.stderr)
    return code


def _terminate(_signal: int, _frame: FrameType | None) -> None:
    raise Terminated


if __name__ == "__main__":
    sys.exit(main())
