"""What a benchmark that is resumed checks before any work: its settings, and where its results go."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

from hardware.errors import FileError

PICTURES = (".png", ".svg", ".pdf")


def check_same(
    out: Path, there: Mapping[str, object], now: Mapping[str, object], what: str
) -> None:
    """ValueError, naming the first that differ, unless a folder holds the same settings.

    Args:
        there, now: JSON values with the same names, nested or not.
        what: the folder holds, with its article.
    """
    pairs = zip(_flat(there), _flat(now), strict=True)
    parts = [f"{name}={old!r}, now {new!r}" for (name, old), (_, new) in pairs if old != new]
    if parts:
        raise ValueError(
            f"{out}: holds {what} with other settings ({'; '.join(parts[:3])}); "
            f"give the same, or another --out"
        )


def with_defaults(settings: Mapping[str, object], defaults: object) -> dict[str, object]:
    """A record's settings; those that are newer than it have the value of `defaults.as_dict()`."""
    known = json.loads(json.dumps(defaults.as_dict()))  # type: ignore[attr-defined]
    return {**known, **settings}


def check_outputs(results: Path | None, plot: Path | None) -> None:
    """Refuse before hours of work what could not be written after them.

    Raises:
        FileError: a path that is no file in a folder that exists.
        ValueError: a picture of another kind.
    """
    for path in (results, plot):
        if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
            raise FileError(f"{path}: is no file in a folder that exists")
    if plot is not None and plot.suffix.lower() not in PICTURES:
        raise ValueError(f"--plot {plot}: use a name that ends in .png, .svg or .pdf")


def _flat(values: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value)
        else:
            yield name, value
