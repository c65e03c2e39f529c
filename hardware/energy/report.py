"""Energy reports: counted operations times a cost table, per sample, with a low-high band.

    energy_pj = sum over operations of count * cost_pj        (at the low, usual and high cost)

Static power times time stands beside the sum, never in it: it has no share by part.
Every number here is an estimate from a table; none is a measurement of the network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from hardware.energy.band import Band, add_bands
from hardware.energy.costs import CostTable
from hardware.energy.counts import count_operations
from hardware.energy.operations import Operation
from hardware.energy.parts import part_order
from hardware.energy.tables import get_table
from hardware.energy.tally import OperationCounts
from hardware.errors import HardwareError
from hardware.ir.graph import SpikeGraph
from hardware.loihi.layout import CoreLayout
from hardware.passes.pipeline import prepare
from hardware.trace import SpikeTrace


@dataclass(frozen=True, kw_only=True)
class OperationEnergy:
    """One operation's share: count and picojoules per sample, and where the price comes from."""

    count_per_sample: float
    energy_pj_per_sample: Band
    grade: str
    source: str
    note: str


@dataclass(frozen=True, kw_only=True)
class PartEnergy:
    """One part's share of the synaptic operations and of the energy, per sample."""

    synops_per_sample: float
    energy_pj_per_sample: Band


@dataclass(frozen=True, kw_only=True)
class StaticEnergy:
    """What chips draw during the barriers of a sample's steps; a floor, beside the sum.

    Attributes:
        chips: as laid out; 1 where there is no layout.
        steps: time steps of a sample; samples follow each other every so many.
        latency_ns: least time from one sample to the next.
    """

    chips: int
    steps: int
    latency_ns: Band
    energy_pj_per_sample: Band
    grade: str
    source: str
    note: str


@dataclass(frozen=True, kw_only=True)
class EnergyReport:
    """An estimate with its boundary.

    Attributes:
        costs: name of the cost table; `title`, `boundary` and `caveats` come from it.
        samples: number of samples averaged over; None where the caller did not say.
        energy_pj_per_sample: picojoules per sample, with the band.
        synops_per_sample: accumulates plus multiply-accumulates per sample.
        counts_per_sample: every operation that was counted, the unpriced ones included.
        by_operation: the priced operations.
        by_part: parts of the network; their energies add up to the whole.
        not_priced: operations that the table leaves out, with the reason.
        counts: the full counts behind the report; None for a network that is not a graph.
        static: static power times time, not in the sum; None where the table knows of none.
    """

    costs: str
    title: str
    boundary: str
    caveats: tuple[str, ...]
    samples: int | None
    energy_pj_per_sample: Band
    synops_per_sample: float
    counts_per_sample: dict[Operation, float]
    by_operation: dict[Operation, OperationEnergy]
    by_part: dict[str, PartEnergy]
    not_priced: dict[Operation, str]
    counts: OperationCounts | None = None
    static: StaticEnergy | None = None

    def as_dict(self) -> dict[str, object]:
        """The report as JSON values (without the tallies of single populations and synapses)."""
        return {
            "kind": "estimate",
            "costs": self.costs,
            "title": self.title,
            "boundary": self.boundary,
            "caveats": list(self.caveats),
            "samples": self.samples,
            "energy_pj_per_sample": asdict(self.energy_pj_per_sample),
            "synops_per_sample": self.synops_per_sample,
            "counts_per_sample": {str(k): v for k, v in self.counts_per_sample.items()},
            "by_operation": {str(k): asdict(v) for k, v in self.by_operation.items()},
            "by_part": {k: asdict(v) for k, v in self.by_part.items()},
            "not_priced": {str(k): v for k, v in self.not_priced.items()},
            "static": None if self.static is None else asdict(self.static),
        }

    def table(self) -> list[str]:
        """The report as lines of plain text."""
        over = "" if self.samples is None else f" over {self.samples} samples"
        lines = [
            f"Estimated energy, not measured: {self.title}",
            f"mean per sample{over}, {self.synops_per_sample:,.1f} synaptic operations",
            "",
            f"{'operation':<24}{'count':>16}{'energy pJ':>16}{'low':>16}{'high':>16}  grade",
        ]
        for operation, entry in self.by_operation.items():
            row = _columns(entry.count_per_sample, entry.energy_pj_per_sample)
            lines.append(f"{operation:<24}{row}  {entry.grade}")
        for operation in self.not_priced:
            count = self.counts_per_sample[operation]
            lines.append(f"{operation:<24}{count:>16,.1f}{'not priced':>16}")
        lines += ["", f"{'part':<24}{'synops':>16}{'energy pJ':>16}{'low':>16}{'high':>16}"]
        for part, share in self.by_part.items():
            row = _columns(share.synops_per_sample, share.energy_pj_per_sample)
            lines.append(f"{part:<24}{row}")
        lines.append(f"{'total':<24}{_columns(self.synops_per_sample, self.energy_pj_per_sample)}")
        if self.static is not None:
            band = self.static.energy_pj_per_sample
            lines.append(
                f"{'static power, at least':<24}{'not in total':>16}{band.value:>16,.1f}"
                f"{band.low:>16,.1f}{band.high:>16,.1f}"
            )
        lines += ["", f"boundary: {self.boundary}"]
        return lines + [f"caveat: {caveat}" for caveat in self.caveats]


def estimate(
    graph: SpikeGraph,
    trace: SpikeTrace,
    costs: str | CostTable = "horowitz45",
    *,
    layout: CoreLayout | None = None,
) -> EnergyReport:
    """Estimate the energy of the run that `trace` recorded; see `count_operations`.

    Args:
        graph: what was simulated (for a trace in fixed point the float graph will do).
        trace: every population recorded.
        costs: a table, or the name of one.
        layout: for tables that price messages between cores: `map_graph(graph, chip).layout`.

    Raises:
        HardwareError: for an unknown table, a trace that does not belong to the graph, or a table
            that needs a layout without one on its chip.
    """
    table = get_table(costs) if isinstance(costs, str) else costs
    _check_chip(table, None if layout is None else layout.chip)
    if trace.meta.get("arithmetic") == "fixed":
        graph = prepare(graph, "fixed")
    return price(count_operations(graph, trace, layout), table)


def price(counts: OperationCounts, costs: str | CostTable) -> EnergyReport:
    """Counted operations under one cost table; count once to compare tables.

    Raises:
        HardwareError: for an unknown table, or one that needs a layout where none was counted.
    """
    table = get_table(costs) if isinstance(costs, str) else costs
    _check_chip(table, counts.chip)
    by_part = _bands(counts, table)
    per_sample = counts.per_sample
    parts = {}
    for part, operations in counts.by_part.items():
        shares = {operation: count / counts.samples for operation, count in operations.items()}
        parts[part] = PartEnergy(
            synops_per_sample=_synops(shares),
            energy_pj_per_sample=add_bands(by_part[part].values()),
        )
    by_operation = {
        operation: add_bands(bands[operation] for bands in by_part.values() if operation in bands)
        for operation in table.costs
    }
    return EnergyReport(
        costs=table.name,
        title=table.title,
        boundary=table.boundary,
        caveats=table.caveats,
        samples=counts.samples,
        energy_pj_per_sample=add_bands(by_operation.values()),
        synops_per_sample=counts.synops_per_sample,
        counts_per_sample=per_sample,
        by_operation={
            operation: OperationEnergy(
                count_per_sample=per_sample[operation],
                energy_pj_per_sample=by_operation[operation],
                grade=cost.grade,
                source=cost.source,
                note=cost.note,
            )
            for operation, cost in table.costs.items()
        },
        by_part=parts,
        not_priced=dict(table.not_priced),
        counts=counts,
        static=_static(counts, table),
    )


def _check_chip(table: CostTable, chip: str | None) -> None:
    if table.chip is not None and chip != table.chip:
        got = "there is none" if chip is None else f"this one is on {chip}"
        raise HardwareError(
            f"cost table '{table.name}' needs a layout on {table.chip}, and {got}; give "
            f"layout=map_graph(graph, '{table.chip}').layout (hardware.loihi.mapping)"
        )


def _bands(counts: OperationCounts, table: CostTable) -> dict[str, dict[Operation, Band]]:
    """Picojoules per sample by part and operation; a price may depend on where it is paid."""
    found: dict[str, dict[Operation, list[Band]]] = {}
    for tally in counts.synapses + counts.populations:
        shares = found.setdefault(tally.part, {})
        for operation, count in tally.operations.items():
            if operation in table.costs:
                cost = table.costs[operation].of(tally)
                shares.setdefault(operation, []).append(cost.times(count / counts.samples))
    return {
        part: {operation: add_bands(bands) for operation, bands in found[part].items()}
        for part in sorted(found, key=part_order)
    }


def _static(counts: OperationCounts, table: CostTable) -> StaticEnergy | None:
    if table.static is None:
        return None
    chips = max(1, counts.chips)
    return StaticEnergy(
        chips=chips,
        steps=counts.time_steps,
        latency_ns=table.static.step_ns.times(counts.time_steps),
        energy_pj_per_sample=table.static.energy_pj(counts.time_steps, chips),
        grade=table.static.grade,
        source=table.static.source,
        note=table.static.note,
    )


def _synops(counts: Mapping[Operation, float]) -> float:
    return counts[Operation.ACCUMULATE] + counts[Operation.MULTIPLY_ACCUMULATE]


def _columns(count: float, energy: Band) -> str:
    return f"{count:>16,.1f}{energy.value:>16,.1f}{energy.low:>16,.1f}{energy.high:>16,.1f}"
