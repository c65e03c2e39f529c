"""Loihi 1 as its designers published it before it was measured."""

from __future__ import annotations

from hardware.energy.band import Band
from hardware.energy.costs import Cost, CostTable, StaticPower
from hardware.energy.operations import Operation

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


LOIHI1_STATIC = StaticPower(
    power_mw=Band(value=104.0, low=104.0, high=104.0),
    step_ns=Band(value=465.0, low=113.0, high=1800.0),
    source="power: Frady et al. 2020, static power of Loihi 1, derived per chip from a measured "
    f"system; time: {DAVIES}: barrier over 1 to 32 tiles 113 to 465 ns; high end: "
    "synchronisation of 29 tiles or more in SANA-FE's Loihi 1 model (fitted) 1.8 us",
    grade="measured",
    note="a floor: the barrier of each step alone; the time that cores need for their work comes "
    "on top, and nothing is known about how much the power differs between chips",
)

LOIHI1 = CostTable(
    name="loihi1",
    title="Loihi 1, dynamic energy per operation (Davies 2018, pre-silicon)",
    boundary="synaptic operations, neuron updates and spikes within a tile; without hops between "
    "tiles (there is no placement), barrier synchronisation, input and output, host, and static "
    "power, which is reported beside the sum",
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
        "static power is not in the sum: Frady 2020 implies about 104 mW per chip on silicon",
        "graded messages do not exist on Loihi 1; relays wider than 8 bits exceed the high end",
        "a neuron whose targets lie on several cores sends several messages; one is counted",
    ),
    static=LOIHI1_STATIC,
)
