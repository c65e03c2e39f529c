"""The cost tables that come with the package."""

from hardware.energy.tables.catalogue import COST_TABLES, get_table

__all__ = ["COST_TABLES", "get_table"]
