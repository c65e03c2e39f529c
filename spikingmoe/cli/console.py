"""Tables and progress on the terminal; plain lines where there is none."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

console = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
LINE_S = 20.0  # at most about this long without a line
Update = Callable[[int, int], None]


def say(text: str) -> None:
    """One line."""
    console.print(text, markup=False)


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table; the first column is text, the others are numbers."""
    console.print(Text(title, style="bold"))
    table = Table()
    for index, column in enumerate(columns):
        table.add_column(Text(column), justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    width = None if sys.stdout.isatty() else 120
    Console(highlight=False, width=width).print(table, markup=False)


@contextmanager
def progress(title: str) -> Iterator[Update]:
    """A bar while something with a known length runs, or lines: call the result with (done, total)."""
    if not console.is_terminal:
        say(f"{title} ...")
        started = said = time.perf_counter()

        def line(done: int, total: int) -> None:
            nonlocal said
            if time.perf_counter() - said >= LINE_S:
                said = time.perf_counter()
                say(f"{title}: {done:,} of {total:,}")

        yield line
        say(f"{title}: {time.perf_counter() - started:.1f} s")
        return
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
    with bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def percent(value: float | None) -> str:
    """A share as percent; a dash where there is none."""
    return "-" if value is None else f"{100 * value:.2f} %"


def number(value: float | None) -> str:
    """A count with separators; a dash where there is none."""
    return "-" if value is None else f"{value:,.0f}"


def nanojoules(energy_pj: float | None) -> str:
    """Picojoules as nJ; a dash where there is none."""
    return "-" if energy_pj is None else f"{energy_pj / 1000:,.1f} nJ"
