"""One thing that was looked at. This package runs on the standard library alone, whatever else is broken."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warning", "missing"]
WIDEST = 300


@dataclass(frozen=True, kw_only=True)
class Check:
    """A line of the table.

    Attributes:
        topic: the heading that it stands under.
        found: what there is.
        cost: what cannot be done, or is slower, because of it.
        fix: the command that mends it, or what to do.
        needed: whether the demo cannot run while it is missing.
    """

    topic: str
    name: str
    state: State
    found: str
    cost: str = ""
    fix: str = ""
    needed: bool = False

    @property
    def stops_the_demo(self) -> bool:
        return self.needed and self.state == "missing"


def guarded(topic: str, name: str, look: Callable[[], Iterable[Check]]) -> list[Check]:
    """The checks that `look` makes; a check that fails itself becomes a warning, never a traceback."""
    try:
        return list(look())
    except Exception as error:  # what is broken here cannot be known beforehand
        return [
            Check(
                topic=topic,
                name=name,
                state="warning",
                found=f"could not be looked at ({one_line(error)})",
                cost="unknown",
                fix="make setup",
            )
        ]


def one_line(error: object) -> str:
    """An error, or any text, as one short line."""
    text = f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else str(error)
    text = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    return text if len(text) <= WIDEST else text[: WIDEST - 3] + "..."
