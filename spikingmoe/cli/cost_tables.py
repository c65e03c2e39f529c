"""Cost tables that a command names: those of the package, and files of one's own."""

from __future__ import annotations

from pathlib import Path

from hardware.energy import COST_TABLES, CostTable, get_table, read_table

FILE_ENDINGS = (".yaml", ".yml")


def open_tables(costs: str) -> list[CostTable]:
    """The tables of a list such as `horowitz45,my.yaml`.

    Raises:
        ValueError: for a name that is empty or stands twice.
        HardwareError: for an unknown table, or a file that holds none.
    """
    names = [name.strip() for name in costs.split(",")]
    if not all(names):
        raise ValueError(f"costs={costs!r} has an empty name; use one of {', '.join(COST_TABLES)}")
    tables = [_open(name) for name in names]
    found = [table.name for table in tables]
    doubled = [name for number, name in enumerate(found) if name in found[:number]]
    if doubled:
        raise ValueError(f"costs={costs}: '{doubled[0]}' stands twice; name each table once")
    return tables


def _open(name: str) -> CostTable:
    is_file = name.lower().endswith(FILE_ENDINGS) or (
        name not in COST_TABLES and Path(name).is_file()
    )
    return read_table(name) if is_file else get_table(name)
