"""The tables that come with the package, by name."""

from __future__ import annotations

import difflib

from hardware.energy.costs import CostTable
from hardware.energy.tables.davies import LOIHI1
from hardware.energy.tables.horowitz import HOROWITZ45
from hardware.energy.tables.horowitz_integer import HOROWITZ45_INT
from hardware.energy.tables.lemaire import LEMAIRE_TABLE
from hardware.energy.tables.sanafe import LOIHI1_FITTED
from hardware.energy.tables.yan import YAN_TABLE
from hardware.errors import HardwareError

COST_TABLES: dict[str, CostTable] = {
    table.name: table
    for table in (HOROWITZ45, HOROWITZ45_INT, LOIHI1, LOIHI1_FITTED, LEMAIRE_TABLE, YAN_TABLE)
}


def get_table(name: str) -> CostTable:
    """The cost table called `name`; raises HardwareError with the known names for any other."""
    if name in COST_TABLES:
        return COST_TABLES[name]
    known = ", ".join(COST_TABLES)
    if name.lower().replace("-", "").replace("_", "").replace(" ", "") == "loihi2":
        raise HardwareError(
            f"cost table '{name}': no table of energies per operation has been published for "
            f"Loihi 2, so none is offered; use one of {known}"
        )
    close = difflib.get_close_matches(name.lower(), COST_TABLES, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    raise HardwareError(f"unknown cost table '{name}'; use one of {known}{hint}")
