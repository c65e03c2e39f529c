"""The non-spiking twin's energy, in the same kind of report."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hardware.energy.band import Band, add_bands
from hardware.energy.costs import Cost, CostTable
from hardware.energy.operations import Operation
from hardware.energy.report import EnergyReport, OperationEnergy, PartEnergy
from hardware.energy.tables import get_table
from hardware.errors import HardwareError


@dataclass(frozen=True, kw_only=True)
class AnnLayer:
    """Multiply-accumulates of one layer of a non-spiking network, mean per sample.

    Args:
        name: the layer.
        macs: all of them, as a dense processor executes them.
        nonzero_macs: those whose activation is not zero.

    Raises:
        HardwareError: unless 0 <= nonzero_macs <= macs.
    """

    name: str
    macs: float
    nonzero_macs: float

    def __post_init__(self) -> None:
        if not 0 <= self.nonzero_macs <= self.macs < float("inf"):
            raise HardwareError(
                f"layer '{self.name}': nonzero_macs={self.nonzero_macs}, macs={self.macs}; "
                f"needs 0 <= nonzero_macs <= macs, finite"
            )


def ann_energy(
    layers: Iterable[AnnLayer],
    costs: str | CostTable = "horowitz45",
    *,
    samples: int | None = None,
) -> EnergyReport:
    """Estimate a non-spiking network: all multiply-accumulates; low end, only the non-zero ones.

    Counts and costs are those of a conventional network: one pass per sample, no time steps. Only
    for tables whose multiply-accumulate is an arithmetic unit's own price, with no spikes in it.

    Args:
        layers: means per sample; names must differ.
        samples: number of samples that the means were taken over.

    Raises:
        HardwareError: for a table without such a price, no layers or a name given twice.
    """
    table = get_table(costs) if isinstance(costs, str) else costs
    layers = tuple(layers)
    cost = table.costs.get(Operation.MULTIPLY_ACCUMULATE)
    if not isinstance(cost, Cost) or not table.prices_ann:
        raise HardwareError(
            f"cost table '{table.name}' has no multiply-accumulate for a non-spiking network; "
            f"use one that has, such as horowitz45"
        )
    if not layers or len({layer.name for layer in layers}) < len(layers):
        raise HardwareError("ann_energy needs at least one layer, and a name of its own for each")
    parts = {
        layer.name: PartEnergy(
            synops_per_sample=layer.macs,
            energy_pj_per_sample=Band(
                value=layer.macs * cost.value_pj,
                low=layer.nonzero_macs * cost.low_pj,
                high=layer.macs * cost.high_pj,
            ),
        )
        for layer in layers
    }
    energy = add_bands(share.energy_pj_per_sample for share in parts.values())
    macs = float(sum(layer.macs for layer in layers))
    return EnergyReport(
        costs=table.name,
        title=f"non-spiking network, {table.title}",
        boundary="multiply-accumulates alone; without activation functions, memory, control and "
        "static power",
        caveats=(
            "low end: only multiply-accumulates of non-zero activations",
            *table.caveats,
        ),
        samples=samples,
        energy_pj_per_sample=energy,
        synops_per_sample=macs,
        counts_per_sample={Operation.MULTIPLY_ACCUMULATE: macs},
        by_operation={
            Operation.MULTIPLY_ACCUMULATE: OperationEnergy(
                count_per_sample=macs,
                energy_pj_per_sample=energy,
                grade=cost.grade,
                source=cost.source,
                note=cost.note,
            )
        },
        by_part=parts,
        not_priced={},
    )
