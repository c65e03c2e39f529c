"""Energy estimates: operations that a run triggered, times sourced costs per operation."""

from hardware.energy.ann import AnnLayer, ann_energy
from hardware.energy.band import Band
from hardware.energy.costs import Cost, CostTable, MemoryCost, StaticPower
from hardware.energy.counts import OperationCounter, count_operations
from hardware.energy.operations import Operation
from hardware.energy.quantised import QuantisedLayer, quantised_energy
from hardware.energy.report import EnergyReport, estimate, price
from hardware.energy.table_file import read_table
from hardware.energy.tables import COST_TABLES, get_table
from hardware.energy.tally import OperationCounts

__all__ = [
    "COST_TABLES",
    "AnnLayer",
    "Band",
    "Cost",
    "CostTable",
    "EnergyReport",
    "MemoryCost",
    "Operation",
    "OperationCounter",
    "OperationCounts",
    "QuantisedLayer",
    "StaticPower",
    "ann_energy",
    "count_operations",
    "estimate",
    "get_table",
    "price",
    "quantised_energy",
    "read_table",
]
