"""What every benchmark shares: times taken in turns, a table, and one JSON file per run.

    report = Report(seeds=[0])                           # machine, versions and command by itself
    report.add(task="dense", n=5, seconds=0.12)          # a row per measured thing, with its n
    report.ratios["vs_dense"] = 0.8                      # how many times ours beats the other
    report.print(); report.print_end(); report.write("results.json")

The file holds `{"machine", "versions", "command", "seeds", "rows", "ratios"}`, written whole or not
at all. A ratio says how many times ours beats the other in the same run: above 1 is better.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from rich.console import Console
from rich.table import Table

from hardware.files import write_json

PACKAGES = ("torch", "snntorch", "numpy", "spikingmoe")


def machine() -> dict[str, object]:
    """What the figures depend on: processor, cores, threads, memory, operating system."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0,
        "torch_threads": torch.get_num_threads(),
        "memory_gib": _memory_gib(),
        "openblas_coretype": os.environ.get("OPENBLAS_CORETYPE"),
        "system": f"{platform.system()} {platform.machine()}",
        "load_at_start": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }


def versions(packages: Sequence[str] = PACKAGES) -> dict[str, str]:
    """Python and the packages, by name."""
    found = {name: importlib.metadata.version(name) for name in packages}
    return {"python": platform.python_version(), **found}


def command() -> str:
    """The command line of this process, as one would type it in the project's folder.

    Of absolute paths the last part alone is told: where folders are is nobody's business.
    """
    script = os.path.relpath(sys.argv[0]) if sys.argv[0] else "python"
    words = [os.path.basename(w.rstrip("/")) if os.path.isabs(w) else w for w in sys.argv[1:]]
    return shlex.join(["python", script, *words])


@dataclass(kw_only=True)
class Report:
    """The rows and ratios of one run, with what they depend on.

    Attributes:
        seeds: every seed that was used.
        rows: one dictionary of JSON values per measured thing, with its `n`.
        ratios: one number per claim, by name.
    """

    seeds: list[int]
    rows: list[dict[str, object]] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)
    machine: dict[str, object] = field(default_factory=machine)
    versions: dict[str, str] = field(default_factory=versions)
    command: str = field(default_factory=command)

    def add(self, **row: object) -> None:
        """Append a row; ValueError without its `n`, the number of measurements."""
        if not isinstance(row.get("n"), int):
            raise ValueError(f"row {row}: n={row.get('n')!r}; give the number of measurements")
        self.rows.append(row)

    def as_dict(self) -> dict[str, object]:
        """The content of the file."""
        return {
            "machine": self.machine,
            "versions": self.versions,
            "command": self.command,
            "seeds": self.seeds,
            "rows": self.rows,
            "ratios": self.ratios,
        }

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the JSON file; FileError (and the old file stays) where that is impossible."""
        write_json(path, self.as_dict())

    def print(self, title: str = "", **where: object) -> None:
        """Print the rows whose fields equal `where` as a table."""
        chosen = [r for r in self.rows if all(r.get(k) == v for k, v in where.items())]
        print_table(title, [{k: v for k, v in r.items() if k not in where} for r in chosen])

    def print_end(self) -> None:
        """Print ratios, machine, versions and seeds."""
        for name, ratio in self.ratios.items():
            print(f"{name}: {ratio:.3g}")
        print(", ".join(f"{k} {v}" for k, v in (self.machine | self.versions).items()))
        print(f"seeds {self.seeds}; {self.command}")


def print_table(title: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Print rows as a table; the columns are the fields in the order in which they appear."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*(_cell(row.get(name)) for name in columns))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def seconds_in_turns(
    sides: Mapping[str, Callable[[], object]],
    *,
    repeats: int,
    warm_up: int = 2,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of each side, called in turns so that a busy machine slows all of them alike.

    Every second round goes backwards: no side always follows the same other one.

    Args:
        clock: seconds; `time.process_time` counts the processor's time of this process alone, which
            a busy machine changes less (with one thread).

    Returns:
        `repeats` times per side, in the order taken: the i-th of all sides belong together.
    """
    for _ in range(warm_up):
        for call in sides.values():
            call()
    taken: dict[str, list[float]] = {name: [] for name in sides}
    order = list(sides)
    for repeat in range(repeats):
        for name in order if repeat % 2 == 0 else reversed(order):
            started = clock()
            sides[name]()
            taken[name].append(clock() - started)
    return taken


def spread(values: Sequence[float]) -> dict[str, float | int]:
    """Median, quartiles and n of repeated measurements."""
    if len(values) < 2:
        return {"median": values[0], "low": values[0], "high": values[0], "n": len(values)}
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "low": low, "high": high, "n": len(values)}


def paired_ratio(numerator: Sequence[float], denominator: Sequence[float]) -> float:
    """Median of the ratios within each round: what slows a whole round cancels."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else str(value)


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass  # not Linux: what Python knows must do
    return platform.processor() or "unknown"


def _memory_gib() -> float | None:
    if not hasattr(os, "sysconf") or "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
