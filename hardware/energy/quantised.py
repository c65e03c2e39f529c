"""The quantised non-spiking twin's energy: integers of few bits, in the same kind of report.

    energy_pj = sum over layers of  macs (mac(bits) + weight read + activation read)
                                  + outputs (rescaling, write) + inputs (bits on the network)

Value and high end: every multiply-accumulate; low end: those of non-zero activations alone, as a processor
that skips zeros pays. The price of each part comes from the cost table's `QuantisedCosts`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from hardware.energy.band import Band, add_bands
from hardware.energy.costs import CostTable
from hardware.energy.operations import Operation
from hardware.energy.parts import part_order
from hardware.energy.quantised_costs import QuantisedCosts
from hardware.energy.report import EnergyReport, OperationEnergy, PartEnergy
from hardware.energy.tables import get_table
from hardware.energy.tally import Tally
from hardware.errors import HardwareError


@dataclass(frozen=True, kw_only=True)
class QuantisedLayer:
    """One layer of a quantised network, means per sample.

    Args:
        name, part: the layer, and the part of the network that it belongs to.
        macs, nonzero_macs: all multiply-accumulates, and those of non-zero activations.
        activation_bits: of the activations that it reads.
        weights: words that its weights take (a kernel once); 0 for a product of activations.
        inputs, outputs: activations that it reads and writes.

    Raises:
        HardwareError: unless 0 <= nonzero_macs <= macs and activation_bits lie in 1..8.
    """

    name: str
    part: str
    macs: float
    nonzero_macs: float
    activation_bits: int
    weights: int
    inputs: float
    outputs: float

    def __post_init__(self) -> None:
        if not 0 <= self.nonzero_macs <= self.macs < float("inf"):
            raise HardwareError(
                f"layer '{self.name}': nonzero_macs={self.nonzero_macs}, macs={self.macs}; "
                f"needs 0 <= nonzero_macs <= macs, finite"
            )
        if not 1 <= self.activation_bits <= 8:
            raise HardwareError(
                f"layer '{self.name}': activation_bits={self.activation_bits}; use 1 to 8"
            )


def quantised_energy(
    layers: Iterable[QuantisedLayer],
    costs: str | CostTable = "horowitz45-int",
    *,
    samples: int | None = None,
) -> EnergyReport:
    """Estimate a quantised non-spiking network with 8-bit weights; one pass per sample.

    Raises:
        HardwareError: for a table without prices of integers, no layers or a name given twice.
    """
    table = get_table(costs) if isinstance(costs, str) else costs
    layers = tuple(layers)
    prices = table.quantised
    if prices is None:
        raise HardwareError(
            f"cost table '{table.name}' has no prices for a quantised network; use horowitz45-int, "
            f"lemaire or yan"
        )
    if not layers or len({layer.name for layer in layers}) < len(layers):
        raise HardwareError(
            "quantised_energy needs at least one layer, and a name of its own for each"
        )
    shares = {layer: _of_layer(layer, prices) for layer in layers}
    parts = sorted({layer.part for layer in layers}, key=part_order)
    counts = {
        Operation.MULTIPLY_ACCUMULATE: sum(layer.macs for layer in layers),
        Operation.WEIGHT_READ: sum(layer.macs for layer in layers if layer.weights),
        Operation.GRADED_MESSAGE: sum(layer.inputs for layer in layers),
    }
    by_operation = {
        operation: OperationEnergy(
            count_per_sample=count,
            energy_pj_per_sample=add_bands(share[operation] for share in shares.values()),
            grade=prices.grade,
            source=prices.source,
            note=NOTES[operation],
        )
        for operation, count in counts.items()
    }
    return EnergyReport(
        costs=table.name,
        title=f"quantised non-spiking network, {table.title}",
        boundary=prices.boundary,
        caveats=(
            "low end: only multiply-accumulates of non-zero activations",
            prices.note,
            *table.caveats,
        ),
        samples=samples,
        energy_pj_per_sample=add_bands(o.energy_pj_per_sample for o in by_operation.values()),
        synops_per_sample=counts[Operation.MULTIPLY_ACCUMULATE],
        counts_per_sample=counts,
        by_operation=by_operation,
        by_part={
            part: _part([layer for layer in layers if layer.part == part], shares) for part in parts
        },
        not_priced={},
    )


NOTES = {
    Operation.MULTIPLY_ACCUMULATE: "arithmetic of b-bit activations and 8-bit weights",
    Operation.WEIGHT_READ: "weights and the activations they meet, read from memory",
    Operation.GRADED_MESSAGE: "activations: rescaled, written and sent on",
}


def _of_layer(layer: QuantisedLayer, prices: QuantisedCosts) -> dict[Operation, Band]:
    """Picojoules per sample by kind of operation."""
    holds = Tally(
        where=layer.name,
        part=layer.part,
        operations={},
        weights=layer.weights,
        states=round(layer.inputs),
    )
    memory = add_bands(price.of(holds) for price in prices.reads if layer.weights)
    output = add_bands([*(price.of(holds) for price in prices.writes), prices.rescale_pj])
    messages = prices.message_bit_pj.times(layer.activation_bits * layer.inputs)
    return {
        Operation.MULTIPLY_ACCUMULATE: _skipping(layer, prices.unit.mac(layer.activation_bits)),
        Operation.WEIGHT_READ: _skipping(layer, memory),
        Operation.GRADED_MESSAGE: add_bands([output.times(layer.outputs), messages]),
    }


def _skipping(layer: QuantisedLayer, each: Band) -> Band:
    return Band(
        value=layer.macs * each.value,
        low=layer.nonzero_macs * each.low,
        high=layer.macs * each.high,
    )


def _part(
    layers: Sequence[QuantisedLayer], shares: dict[QuantisedLayer, dict[Operation, Band]]
) -> PartEnergy:
    bands = [band for layer in layers for band in shares[layer].values()]
    return PartEnergy(
        synops_per_sample=sum(layer.macs for layer in layers), energy_pj_per_sample=add_bands(bands)
    )
