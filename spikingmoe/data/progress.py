"""How long work on data tells how far it is."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

Update = Callable[[int, int], None]  # (done, total)
#: Given a title, a context in which the work runs and reports.
Watch = Callable[[str], AbstractContextManager[Update]]


def unwatched(_title: str) -> AbstractContextManager[Update]:
    """Nobody is told."""
    return nullcontext(lambda done, total: None)
