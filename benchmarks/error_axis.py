"""An axis of accuracy by the logarithm of the error, on which 98 and 99 % lie as far apart as 80 and 90 %."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

LEAST_ERROR = 0.1  # %, for the logarithm
LABEL = "test accuracy, % (logarithm of the error)"


def error(accuracy: float) -> float:
    """Wrong answers, %, of an accuracy in 0..1; none counts as `LEAST_ERROR`."""
    return max(LEAST_ERROR, 100 * (1 - accuracy))


def name_ticks(axis: Axis, words: Callable[[float], str] = "{:g}".format) -> None:
    """Write plain numbers at 1, 2, 3 and 5 of each decade of a logarithmic axis."""
    from matplotlib.ticker import FuncFormatter, LogLocator

    axis.set_minor_locator(LogLocator(subs=(2, 3, 5)))
    for set_form in (axis.set_major_formatter, axis.set_minor_formatter):
        set_form(FuncFormatter(lambda value, _: words(value)))


def show_accuracy(axes: Axes, errors: Sequence[float]) -> None:
    """Make the y axis of errors, %, one that is read as accuracy, with room around `errors`."""
    axes.set_yscale("log")
    name_ticks(axes.yaxis, lambda y: f"{100 - y:g}")
    axes.set_ylim(min(100.0, 1.6 * max(errors)), max(LEAST_ERROR, 0.5 * min(errors)))
    axes.set_ylabel(LABEL)
