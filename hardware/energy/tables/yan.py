"""Arithmetic and data movement at 22 nm after Yan et al. 2024."""

from __future__ import annotations

from hardware.energy.band import Band
from hardware.energy.costs import Cost, CostTable
from hardware.energy.operations import Operation
from hardware.energy.quantised_costs import BitSerial, QuantisedCosts

YAN = (
    "Yan et al., Reconsidering the energy efficiency of spiking neural networks, 2024 (arXiv "
    "2409.08290), 22 nm; cited second-hand, not checked against the paper"
)
ADD_PJ = 0.05448  # accumulate and compare alike
SPARSE_PJ, DENSE_PJ = 3.0, 0.25  # per bit and hop
DRAM_PJ = 20.3  # per bit
WEIGHT_BITS, GRADED_BITS, ADDRESS_BITS = 8, 8, 16


def _cost(value_pj: float, low_pj: float, high_pj: float, what: str, note: str) -> Cost:
    return Cost(
        value_pj=value_pj,
        low_pj=low_pj,
        high_pj=high_pj,
        source=f"{YAN}: {what}",
        grade="analytical",
        note=note,
    )


_UPDATE = _cost(
    ADD_PJ,
    ADD_PJ,
    3 * ADD_PJ,
    "compare 0.05448 pJ",
    "high end: two adds more, for a bias and for a decay by shift",
)
_RELAY = _cost(ADD_PJ, 0.0, ADD_PJ, "accumulate 0.05448 pJ", "a relay or readout as one add")

_WEIGHT_READ = _cost(
    0.0,
    0.0,
    DRAM_PJ * WEIGHT_BITS,
    "DRAM 20.3 pJ per bit",
    "value: weights stay beside the adders, whose memory has no price here; high end: 8 bits "
    "from DRAM for each use",
)

YAN_TABLE = CostTable(
    name="yan",
    title="Arithmetic and data movement at 22 nm (Yan 2024, second-hand)",
    boundary="accumulates, comparisons and one hop per message; weights from outside the chip only "
    "in the high end; without on-chip memory, a placement, control and static power",
    costs={
        Operation.ACCUMULATE: _cost(
            ADD_PJ, ADD_PJ, ADD_PJ, "accumulate 0.05448 pJ", "one point, no band is published"
        ),
        Operation.MULTIPLY_ACCUMULATE: _cost(
            ADD_PJ * GRADED_BITS / 2,
            ADD_PJ,
            ADD_PJ * GRADED_BITS,
            "derived from accumulate 0.05448 pJ",
            "a number of 8 bits, bit by bit; low end: one bit is set; value: half; high end: all",
        ),
        Operation.WEIGHT_READ: _WEIGHT_READ,
        Operation.NEURON_UPDATE_ACTIVE: _UPDATE,
        Operation.NEURON_UPDATE_IDLE: _UPDATE,
        Operation.RELAY_UPDATE_ACTIVE: _RELAY,
        Operation.RELAY_UPDATE_IDLE: _RELAY,
        Operation.SPIKE: _cost(
            SPARSE_PJ,
            DENSE_PJ,
            SPARSE_PJ * ADDRESS_BITS,
            "sparse 3.0, dense 0.25 pJ per bit and hop",
            "one hop. Low end: one bit of a dense map; value: one bit, sparse; high end: an address "
            "of 16 bits, sparse",
        ),
        Operation.GRADED_MESSAGE: _cost(
            SPARSE_PJ * GRADED_BITS,
            DENSE_PJ * GRADED_BITS,
            SPARSE_PJ * (GRADED_BITS + ADDRESS_BITS),
            "sparse 3.0, dense 0.25 pJ per bit and hop",
            "one hop of 8 bits; low end: dense; high end: with an address of 16 bits, sparse",
        ),
    },
    not_priced={
        Operation.MEMBRANE_READ: "no price per access of on-chip memory is at hand",
        Operation.MEMBRANE_WRITE: "no price per access of on-chip memory is at hand",
    },
    caveats=(
        "the constants are second-hand",
        "8-bit weights, 8-bit numbers and 16-bit addresses are our assumptions",
    ),
    quantised=QuantisedCosts(
        unit=BitSerial(add_pj=ADD_PJ),
        reads=(_WEIGHT_READ,),
        rescale_pj=Band(value=ADD_PJ, low=ADD_PJ, high=8 * ADD_PJ),
        message_bit_pj=Band(value=DENSE_PJ, low=DENSE_PJ, high=SPARSE_PJ),
        source=f"{YAN}: accumulate and compare 0.05448 pJ, dense 0.25, sparse 3.0 pJ per bit and hop",
        grade="analytical",
        note="an activation of b bits, bit by bit; every activation is sent as b bits of a dense map over "
        "one hop; high end: sparse, all bits set, weights from DRAM for each use",
        boundary="multiply-accumulates bit by bit, rescaling, one hop per activation; weights from outside "
        "the chip only in the high end; without on-chip memory, control and static power",
    ),
)
