"""Energy reports: counted operations times a cost table, per sample, with a low-high band.

    energy_pj = sum over operations of count * cost_pj        (at the low, usual and high cost)

Every number here is an estimate from a table; none is a measurement of the network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from hardware.energy.costs import CostTable, get_table
from hardware.energy.counts import Operation, OperationCounts, count_operations
from hardware.ir.graph import SpikeGraph
from hardware.passes.pipeline import prepare
from hardware.trace import SpikeTrace


@dataclass(frozen=True, kw_only=True)
class Band:
    """A value between its low and its high end."""

    value: float
    low: float
    high: float


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
class EnergyReport:
    """An estimate with its boundary.

    Attributes:
        costs: name of the cost table; `title`, `boundary` and `caveats` come from it.
        samples: number of samples averaged over; None where the caller did not say.
        energy_pj_per_sample: picojoules per sample, with the band.
        synops_per_sample: accumulates plus multiply-accumulates per sample.
        counts_per_sample: every operation, the unpriced ones included.
        by_operation: the priced operations.
        by_part: parts of the network; their energies add up to the whole.
        not_priced: operations that the table leaves out, with the reason.
        counts: the full counts behind the report; None for a network that is not a graph.
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
        lines += ["", f"boundary: {self.boundary}"]
        return lines + [f"caveat: {caveat}" for caveat in self.caveats]


def estimate(
    graph: SpikeGraph, trace: SpikeTrace, costs: str | CostTable = "horowitz45"
) -> EnergyReport:
    """Estimate the energy of the run that `trace` recorded; see `count_operations`.

    Args:
        graph: what was simulated (for a trace in fixed point the float graph will do).
        trace: every population recorded.
        costs: a table, or the name of one.

    Raises:
        HardwareError: for an unknown table or a trace that does not belong to the graph.
    """
    table = get_table(costs) if isinstance(costs, str) else costs
    if trace.meta.get("arithmetic") == "fixed":
        graph = prepare(graph, "fixed")
    return price(count_operations(graph, trace), table)


def price(counts: OperationCounts, costs: str | CostTable) -> EnergyReport:
    """Counted operations under one cost table; count once to compare tables."""
    table = get_table(costs) if isinstance(costs, str) else costs
    per_sample = counts.per_sample
    parts = {}
    for part, operations in counts.by_part.items():
        shares = {operation: count / counts.samples for operation, count in operations.items()}
        parts[part] = PartEnergy(
            synops_per_sample=_synops(shares), energy_pj_per_sample=_energy(shares, table)
        )
    return EnergyReport(
        costs=table.name,
        title=table.title,
        boundary=table.boundary,
        caveats=table.caveats,
        samples=counts.samples,
        energy_pj_per_sample=_energy(per_sample, table),
        synops_per_sample=counts.synops_per_sample,
        counts_per_sample=per_sample,
        by_operation={
            operation: OperationEnergy(
                count_per_sample=per_sample[operation],
                energy_pj_per_sample=_energy({operation: per_sample[operation]}, table),
                grade=cost.grade,
                source=cost.source,
                note=cost.note,
            )
            for operation, cost in table.costs.items()
        },
        by_part=parts,
        not_priced=dict(table.not_priced),
        counts=counts,
    )


def _energy(counts: Mapping[Operation, float], table: CostTable) -> Band:
    return add_bands(
        Band(value=n * cost.value_pj, low=n * cost.low_pj, high=n * cost.high_pj)
        for operation, n in counts.items()
        if (cost := table.costs.get(operation)) is not None
    )


def add_bands(bands: Iterable[Band]) -> Band:
    """The sum, end by end."""
    bands = list(bands)
    return Band(
        value=sum((b.value for b in bands), 0.0),
        low=sum((b.low for b in bands), 0.0),
        high=sum((b.high for b in bands), 0.0),
    )


def _synops(counts: Mapping[Operation, float]) -> float:
    return counts[Operation.ACCUMULATE] + counts[Operation.MULTIPLY_ACCUMULATE]


def _columns(count: float, energy: Band) -> str:
    return f"{count:>16,.1f}{energy.value:>16,.1f}{energy.low:>16,.1f}{energy.high:>16,.1f}"
