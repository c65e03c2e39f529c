"""The field's convention: arithmetic at 45 nm, nothing else."""

from __future__ import annotations

from hardware.energy.costs import Cost, CostTable
from hardware.energy.operations import Operation

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
