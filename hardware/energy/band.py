"""A value between its low and its high end."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Band:
    """A value between its low and its high end."""

    value: float
    low: float
    high: float

    def times(self, count: float) -> Band:
        """All three ends of so many."""
        return Band(value=count * self.value, low=count * self.low, high=count * self.high)


def add_bands(bands: Iterable[Band]) -> Band:
    """The sum, end by end."""
    bands = list(bands)
    return Band(
        value=sum((b.value for b in bands), 0.0),
        low=sum((b.low for b in bands), 0.0),
        high=sum((b.high for b in bands), 0.0),
    )
