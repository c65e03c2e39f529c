"""Checkpoints that come with the package, by name."""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "checkpoints"
SUFFIX = ".safetensors"
NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")


def bundled_names() -> list[str]:
    """Names of all bundled checkpoints, in order."""
    return sorted(p.name.removesuffix(SUFFIX) for p in FOLDER.glob(f"*{SUFFIX}"))


def bundled_file(name: str | Path) -> Path | None:
    """The bundled checkpoint of that name; None if there is none."""
    return FOLDER / f"{name}{SUFFIX}" if str(name) in bundled_names() else None


def is_bundled(file: Path) -> bool:
    """Whether a checkpoint file is one of the package's, beside which nothing is written."""
    return file.parent == FOLDER
