"""Energy estimates: operations that a run triggered, times sourced costs per operation."""

from hardware.energy.ann import AnnLayer, ann_energy
from hardware.energy.costs import COST_TABLES, Cost, CostTable, get_table
from hardware.energy.counts import (
    Operation,
    OperationCounter,
    OperationCounts,
    count_operations,
)
from hardware.energy.report import EnergyReport, estimate, price

__all__ = [
    "COST_TABLES",
    "AnnLayer",
    "Cost",
    "CostTable",
    "EnergyReport",
    "Operation",
    "OperationCounter",
    "OperationCounts",
    "ann_energy",
    "count_operations",
    "estimate",
    "get_table",
    "price",
]
