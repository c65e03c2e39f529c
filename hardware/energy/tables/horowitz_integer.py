"""Integer arithmetic at 45 nm: what a spiking and a quantised network pay like for like."""

from __future__ import annotations

from hardware.energy.band import Band
from hardware.energy.costs import Cost, CostTable
from hardware.energy.operations import Operation
from hardware.energy.quantised_costs import ArrayMultiplier, QuantisedCosts

HOROWITZ = "Horowitz, Computing's energy problem, ISSCC 2014, 45 nm, integers"
ADD8_PJ, ADD32_PJ = 0.03, 0.1
MULTIPLY8_PJ, MULTIPLY32_PJ = 0.2, 3.1


def _cost(value_pj: float, low_pj: float, high_pj: float, what: str, note: str) -> Cost:
    return Cost(
        value_pj=value_pj,
        low_pj=low_pj,
        high_pj=high_pj,
        source=f"{HOROWITZ}: {what}",
        grade="convention",
        note=note,
    )


_UPDATE = _cost(
    0.0,
    0.0,
    3 * ADD32_PJ,
    "add 0.1 pJ",
    "the convention ignores neurons; high end: decay by shift, bias and comparison as three adds",
)
_RELAY = _cost(
    0.0,
    0.0,
    ADD32_PJ,
    "add 0.1 pJ",
    "the convention ignores neurons; high end: a relay or readout is priced as one add",
)

HOROWITZ45_INT = CostTable(
    name="horowitz45-int",
    title="Integer arithmetic alone at 45 nm (Horowitz 2014)",
    boundary="arithmetic of triggered synaptic operations only, 8-bit weights and 32-bit sums; without "
    "weight and membrane memory, messages, control and static power; neuron updates only in the "
    "high end",
    costs={
        Operation.ACCUMULATE: _cost(
            ADD32_PJ,
            ADD8_PJ,
            ADD32_PJ,
            "add 0.1 pJ (32 bits), 0.03 pJ (8 bits)",
            "an 8-bit weight onto a 32-bit membrane; low end: an 8-bit add",
        ),
        Operation.MULTIPLY_ACCUMULATE: _cost(
            MULTIPLY8_PJ + ADD32_PJ,
            MULTIPLY8_PJ + ADD8_PJ,
            MULTIPLY32_PJ + ADD32_PJ,
            "multiply 0.2 pJ (8 bits), 3.1 pJ (32 bits), and an add",
            "a graded message of 8 bits; high end: of 32 bits, since relays carry up to 24",
        ),
        Operation.NEURON_UPDATE_ACTIVE: _UPDATE,
        Operation.NEURON_UPDATE_IDLE: _UPDATE,
        Operation.RELAY_UPDATE_ACTIVE: _RELAY,
        Operation.RELAY_UPDATE_IDLE: _RELAY,
    },
    not_priced={
        Operation.WEIGHT_READ: "the convention ignores memory",
        Operation.MEMBRANE_READ: "the convention ignores memory",
        Operation.MEMBRANE_WRITE: "the convention ignores memory",
        Operation.SPIKE: "the convention ignores communication",
        Operation.GRADED_MESSAGE: "the convention ignores communication",
    },
    caveats=("memory, left out here, outweighs arithmetic on real hardware (Lemaire 2022)",),
    quantised=QuantisedCosts(
        unit=ArrayMultiplier(
            multiply_pj=MULTIPLY8_PJ,
            add_pj=Band(value=ADD32_PJ, low=ADD8_PJ, high=ADD32_PJ),
        ),
        rescale_pj=Band(value=0.0, low=0.0, high=MULTIPLY8_PJ + ADD32_PJ),
        source=f"{HOROWITZ}: multiply 0.2 pJ (8 bits), add 0.1 pJ (32 bits), 0.03 pJ (8 bits)",
        grade="analytical",
        note="a multiplier is taken to cost in proportion to its rows, one per bit of the activation; high "
        "end: a whole 8 x 8 multiplier, and rescaling each activation (a multiply and an add)",
        boundary="multiply-accumulates of b-bit activations and 8-bit weights; rescaling only in the "
        "high end; without memory, control and static power",
    ),
)
