"""`python -m spikingmoe.doctor.imports MODULE...`: import each and say what happened."""

from __future__ import annotations

import importlib
import sys

from spikingmoe.doctor.check import one_line
from spikingmoe.doctor.child import tell


def main(modules: list[str]) -> None:
    """Tell null for each module that can be imported, else its error."""
    for module in modules:
        tell(f"begin {module}", True)  # a crash leaves this as the last word
        try:
            importlib.import_module(module)
        except (Exception, SystemExit) as error:
            tell(f"import {module}", one_line(error))
        else:
            tell(f"import {module}", None)


if __name__ == "__main__":
    main(sys.argv[1:])
