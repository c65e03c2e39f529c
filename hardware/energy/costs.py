"""Cost tables: picojoules per operation, each constant with its source, its grade and its band."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from hardware.energy.counts import Operation
from hardware.errors import HardwareError

Grade = Literal["measured", "fitted", "pre-silicon", "analytical", "convention"]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Energy of one operation.

    Args:
        value_pj, low_pj, high_pj: picojoules; 0 <= low_pj <= value_pj <= high_pj.
        source: publication and place in it; for a derived number, what it was derived from.
        grade: how `value_pj` was obtained.
        note: what the band means.

    Raises:
        HardwareError: for a band out of order, an empty source or an unknown grade.
    """

    value_pj: float
    low_pj: float
    high_pj: float
    source: str
    grade: Grade
    note: str

    def __post_init__(self) -> None:
        ordered = 0 <= self.low_pj <= self.value_pj <= self.high_pj
        if not ordered or not math.isfinite(self.high_pj):
            raise HardwareError(
                f"cost {self.value_pj} pJ with band {self.low_pj} to {self.high_pj}; "
                f"needs 0 <= low <= value <= high, finite"
            )
        if not self.source.strip():
            raise HardwareError(f"cost {self.value_pj} pJ has no source; name the publication")
        if self.grade not in get_args(Grade):
            raise HardwareError(f"grade {self.grade!r}; use one of {', '.join(get_args(Grade))}")


@dataclass(frozen=True, kw_only=True)
class CostTable:
    """Costs by operation, and what they leave out.

    Args:
        name, title: short name for scripts, full name for people.
        boundary: what is inside the estimate and what is not.
        costs: the operations that have a price.
        not_priced: every other operation, with the reason why it has none.
        caveats: what a reader of the number must know.
        prices_ann: whether its multiply-accumulate is an arithmetic unit's, so that it also prices
            a non-spiking network.

    Raises:
        HardwareError: unless each operation stands in exactly one of `costs` and `not_priced`.
    """

    name: str
    title: str
    boundary: str
    costs: Mapping[Operation, Cost]
    not_priced: Mapping[Operation, str]
    caveats: tuple[str, ...] = ()
    prices_ann: bool = False

    def __post_init__(self) -> None:
        for operation in Operation:
            if (operation in self.costs) == (operation in self.not_priced):
                raise HardwareError(
                    f"cost table '{self.name}': {operation} must stand in exactly one of costs and "
                    f"not_priced"
                )


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


HOROWITZ = "Horowitz, Computing's energy problem, ISSCC 2014, 45 nm, 32-bit floating point"
ADD_PJ = 0.9
MULTIPLY_ADD_PJ = 4.6  # multiply 3.7 and add, written out: 3.7 + 0.9 is not 4.6 in binary
UPDATE_HIGH_PJ = MULTIPLY_ADD_PJ + ADD_PJ  # decay and add, then compare with the threshold

_FREE_UPDATE = Cost(
    value_pj=0.0,
    low_pj=0.0,
    high_pj=UPDATE_HIGH_PJ,
    source=f"{HOROWITZ}; multiply-accumulate 4.6 pJ + add 0.9 pJ for the high end",
    grade="convention",
    note="the convention ignores neurons; high end: decay and add (one multiply-accumulate) and "
    "compare (priced as one add)",
)
_FREE_RELAY = Cost(
    value_pj=0.0,
    low_pj=0.0,
    high_pj=ADD_PJ,
    source=f"{HOROWITZ}; add 0.9 pJ for the high end",
    grade="convention",
    note="the convention ignores neurons; high end: a relay or readout is priced as one add",
)

HOROWITZ45 = CostTable(
    name="horowitz45",
    title="The field's convention: 45 nm arithmetic alone (Horowitz 2014)",
    boundary="arithmetic of triggered synaptic operations only; without weight and membrane "
    "memory, messages, control and static power; neuron updates only in the high end",
    costs={
        Operation.ACCUMULATE: Cost(
            value_pj=ADD_PJ,
            low_pj=ADD_PJ,
            high_pj=ADD_PJ,
            source=f"{HOROWITZ}: add 0.9 pJ",
            grade="convention",
            note="one point, no band is published",
        ),
        Operation.MULTIPLY_ACCUMULATE: Cost(
            value_pj=MULTIPLY_ADD_PJ,
            low_pj=MULTIPLY_ADD_PJ,
            high_pj=MULTIPLY_ADD_PJ,
            source=f"{HOROWITZ}: multiply 3.7 pJ + add 0.9 pJ",
            grade="convention",
            note="one point, no band is published",
        ),
        Operation.NEURON_UPDATE_ACTIVE: _FREE_UPDATE,
        Operation.NEURON_UPDATE_IDLE: _FREE_UPDATE,
        Operation.RELAY_UPDATE_ACTIVE: _FREE_RELAY,
        Operation.RELAY_UPDATE_IDLE: _FREE_RELAY,
    },
    not_priced={
        Operation.WEIGHT_READ: "the convention ignores memory",
        Operation.MEMBRANE_READ: "the convention ignores memory",
        Operation.MEMBRANE_WRITE: "the convention ignores memory",
        Operation.SPIKE: "the convention ignores communication",
        Operation.GRADED_MESSAGE: "the convention ignores communication",
    },
    caveats=(
        "memory, left out here, outweighs arithmetic on real hardware (Lemaire 2022)",
        "the band holds the cost of neuron updates only, not the spread between chips",
        "published figures often price every position of the first layer; here a "
        "multiply-accumulate is counted only where a non-zero value meets a stored weight",
    ),
    prices_ann=True,
)

DAVIES = "Davies et al., Loihi, IEEE Micro 2018, table 2 (SPICE, 0.75 V)"
SYNOP_PJ = 23.6
SYNOP_HIGH_PJ = 35.5
UPDATE_ACTIVE_PJ = 81.0
UPDATE_IDLE_PJ = 52.0
SPIKE_IN_TILE_PJ = 1.7
GRADED_BITS = 8  # bit planes of a number sent as binary spikes
_GRADED_NOTE = (
    "Loihi 1 has no graded spikes. Low end: as if one binary event carried the number; high end: "
    "8 bit planes, one binary event each; value: half of them, since half of the bits are set in "
    "numbers spread evenly"
)


def _davies(value_pj: float, what: str, note: str) -> Cost:
    return Cost(
        value_pj=value_pj,
        low_pj=value_pj,
        high_pj=value_pj,
        source=f"{DAVIES}: {what}",
        grade="pre-silicon",
        note=note,
    )


def _davies_graded(event_pj: float, what: str) -> Cost:
    return Cost(
        value_pj=event_pj * GRADED_BITS / 2,
        low_pj=event_pj,
        high_pj=event_pj * GRADED_BITS,
        source=f"derived from {DAVIES}: {what}",
        grade="analytical",
        note=_GRADED_NOTE,
    )


LOIHI1 = CostTable(
    name="loihi1",
    title="Loihi 1, dynamic energy per operation (Davies 2018, pre-silicon)",
    boundary="synaptic operations, neuron updates and spikes within a tile; without hops between "
    "tiles (there is no placement), barrier synchronisation, input and output, host, and static "
    "power",
    costs={
        Operation.ACCUMULATE: Cost(
            value_pj=SYNOP_PJ,
            low_pj=SYNOP_PJ,
            high_pj=SYNOP_HIGH_PJ,
            source=f"{DAVIES}: synaptic operation 23.6 pJ (minimum); high end: SANA-FE's Loihi 1 "
            "model, dense synapse 35.5 pJ (fitted on silicon)",
            grade="pre-silicon",
            note="the published number is a minimum",
        ),
        Operation.MULTIPLY_ACCUMULATE: _davies_graded(
            SYNOP_PJ, "synaptic operation 23.6 pJ (minimum)"
        ),
        Operation.NEURON_UPDATE_ACTIVE: _davies(UPDATE_ACTIVE_PJ, "active 81 pJ", "LIF"),
        Operation.NEURON_UPDATE_IDLE: _davies(UPDATE_IDLE_PJ, "inactive 52 pJ", "LIF"),
        Operation.RELAY_UPDATE_ACTIVE: _davies(
            UPDATE_ACTIVE_PJ, "active 81 pJ", "a relay or readout is priced as a LIF neuron"
        ),
        Operation.RELAY_UPDATE_IDLE: _davies(
            UPDATE_IDLE_PJ, "inactive 52 pJ", "a relay or readout is priced as a LIF neuron"
        ),
        Operation.SPIKE: _davies(
            SPIKE_IN_TILE_PJ, "spike within a tile 1.7 pJ", "one message per spike, no hops"
        ),
        Operation.GRADED_MESSAGE: _davies_graded(SPIKE_IN_TILE_PJ, "spike within a tile 1.7 pJ"),
    },
    not_priced={
        Operation.WEIGHT_READ: "inside the synaptic operation",
        Operation.MEMBRANE_READ: "inside the neuron update",
        Operation.MEMBRANE_WRITE: "inside the neuron update",
    },
    caveats=(
        "static power is not included; Frady 2020 implies about 104 mW per chip on silicon",
        "graded messages do not exist on Loihi 1; relays wider than 8 bits exceed the high end",
        "a neuron whose targets lie on several cores sends several messages; one is counted",
    ),
)

COST_TABLES: dict[str, CostTable] = {table.name: table for table in (HOROWITZ45, LOIHI1)}
