"""What both configurations share: typed fields, checked values, names that are not known."""

from __future__ import annotations

import difflib
import functools
import math
from dataclasses import fields
from typing import get_args, get_type_hints


def unknown(what: str, name: str, known: object) -> str:
    """One line for a name that is not known: what was meant, and what there is."""
    names = sorted(str(k) for k in known)  # type: ignore[attr-defined]
    close = difflib.get_close_matches(str(name), names, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    return f"unknown {what} '{name}'{hint} (there are: {', '.join(names)})"


def from_dict(cls: type, values: dict[str, object]):
    """A configuration from a file's values; what an older file does not name has its default.

    So a new option's default must be what was done before there was a choice.
    """
    names = {f.name for f in fields(cls)}
    if not isinstance(values, dict):
        raise ValueError(f"{cls.__name__} needs names and values, got {type(values).__name__}")
    if others := sorted(set(map(str, values)) - names):
        raise ValueError(f"{cls.__name__} has no fields {', '.join(others[:5])}")
    return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in values.items()})


@functools.cache
def _type_hints(cls: type) -> dict[str, object]:
    """Evaluated once per class: reading a checkpoint later evaluates nothing."""
    return get_type_hints(cls)


def check_types(config: object) -> None:
    hints = _type_hints(type(config))
    for field in fields(config):  # type: ignore[arg-type]
        value, hint = getattr(config, field.name), hints[field.name]
        choices = get_args(hint) if str(hint).startswith("typing.Literal") else ()
        if choices and value not in choices:
            raise ValueError(f"{field.name}={value!r}; use one of {', '.join(map(repr, choices))}")
        wrong = (
            (hint is int and type(value) is not int)
            or (hint is float and type(value) not in (int, float))
            or (hint is bool and type(value) is not bool)
            or (hint is str and type(value) is not str)
            or (
                hint == tuple[int, ...]
                and not (isinstance(value, tuple) and all(type(v) is int for v in value))
            )
        )
        if wrong:
            raise TypeError(f"{field.name}={value!r} is {type(value).__name__}; needs {hint}")
        if isinstance(value, (int, float)) and not math.isfinite(value):
            raise ValueError(f"{field.name}={value!r} must be a finite number")
