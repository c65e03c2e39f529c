"""Loihi 1 as SANA-FE models it: fitted on silicon, by kind of synapse, with messages and hops."""

from __future__ import annotations

from hardware.energy.costs import Cost, CostTable
from hardware.energy.operations import Operation
from hardware.energy.tables.davies import GRADED_BITS, LOIHI1_STATIC

SANAFE = "SANA-FE 2.2.9, Loihi 1 model (Boyle et al., fitted on silicon)"
ERROR = 0.117  # the largest error of its energies against the chip
DENSE_PJ, SPARSE_PJ, CONVOLUTION_PJ = 35.5, 33.6, 24.0
ACCESS_PJ, CHANGE_PJ, SPIKE_OUT_PJ = 51.2, 21.6, 69.3
MESSAGE_PJ, EAST_WEST_PJ, NORTH_SOUTH_PJ = 111.0, 3.0, 4.2


def _fitted(value_pj: float, what: str) -> Cost:
    return Cost(
        value_pj=value_pj,
        low_pj=value_pj * (1 - ERROR),
        high_pj=value_pj * (1 + ERROR),
        source=f"{SANAFE}: {what}",
        grade="fitted",
        note="band: the model's largest error against silicon, 11.7 %, of whole runs, not of one "
        "constant",
    )


def _graded(event_pj: float, what: str) -> Cost:
    return Cost(
        value_pj=event_pj * GRADED_BITS / 2,
        low_pj=event_pj * (1 - ERROR),
        high_pj=event_pj * GRADED_BITS * (1 + ERROR),
        source=f"derived from {SANAFE}: {what}",
        grade="analytical",
        note="Loihi 1 has no graded spikes. Low end: one binary event carries the number; high end: 8 "
        "bit planes, one event each; value: half of them",
    )


LOIHI1_FITTED = CostTable(
    name="loihi1-fitted",
    title="Loihi 1, fitted on silicon, with a placement (SANA-FE's model)",
    boundary="synapses by kind, neuron updates, spikes, messages between cores and hops of our "
    "placement; without axon inputs and dendrites (nothing in the model), input and output, host, "
    "and static power, which is reported beside the sum",
    costs={
        Operation.ACCUMULATE_DENSE: _fitted(DENSE_PJ, "dense synapse 35.5 pJ"),
        Operation.ACCUMULATE_SPARSE: _fitted(SPARSE_PJ, "sparse synapse 33.6 pJ"),
        Operation.ACCUMULATE_CONVOLUTION: _fitted(CONVOLUTION_PJ, "convolution synapse 24.0 pJ"),
        Operation.MULTIPLY_ACCUMULATE_DENSE: _graded(DENSE_PJ, "dense synapse 35.5 pJ"),
        Operation.MULTIPLY_ACCUMULATE_SPARSE: _graded(SPARSE_PJ, "sparse synapse 33.6 pJ"),
        Operation.MULTIPLY_ACCUMULATE_CONVOLUTION: _graded(
            CONVOLUTION_PJ, "convolution synapse 24.0 pJ"
        ),
        Operation.NEURON_UPDATE_ACTIVE: _fitted(ACCESS_PJ, "neuron access 51.2 pJ"),
        Operation.NEURON_UPDATE_IDLE: _fitted(ACCESS_PJ, "neuron access 51.2 pJ"),
        Operation.RELAY_UPDATE_ACTIVE: _fitted(
            ACCESS_PJ, "neuron access 51.2 pJ (a relay or readout as a neuron)"
        ),
        Operation.RELAY_UPDATE_IDLE: _fitted(
            ACCESS_PJ, "neuron access 51.2 pJ (a relay or readout as a neuron)"
        ),
        Operation.STATE_CHANGE: _fitted(CHANGE_PJ, "neuron update 21.6 pJ, if the state changes"),
        Operation.NEURON_SPIKE: _fitted(SPIKE_OUT_PJ, "spike out 69.3 pJ; inputs cost nothing"),
        Operation.CORE_MESSAGE: _fitted(MESSAGE_PJ, "message out 111 pJ per destination core"),
        Operation.HOP_EAST_WEST: _fitted(EAST_WEST_PJ, "hop east or west 3.0 pJ"),
        Operation.HOP_NORTH_SOUTH: _fitted(NORTH_SOUTH_PJ, "hop north or south 4.2 pJ"),
        Operation.GRADED_CORE_MESSAGE: _graded(MESSAGE_PJ, "message out 111 pJ"),
        Operation.GRADED_HOP_EAST_WEST: _graded(EAST_WEST_PJ, "hop east or west 3.0 pJ"),
        Operation.GRADED_HOP_NORTH_SOUTH: _graded(NORTH_SOUTH_PJ, "hop north or south 4.2 pJ"),
    },
    not_priced={
        Operation.ACCUMULATE: "priced by kind of synapse",
        Operation.MULTIPLY_ACCUMULATE: "priced by kind of synapse",
        Operation.WEIGHT_READ: "inside the synapse",
        Operation.SPIKE: "priced for neurons, by messages and by hops; inputs cost nothing to make",
        Operation.GRADED_MESSAGE: "priced by messages and by hops",
        Operation.MEMBRANE_READ: "inside the neuron update",
        Operation.MEMBRANE_WRITE: "inside the neuron update",
    },
    caveats=(
        "the placement is ours, not that of Intel's compiler, and its fit on the chip is an estimate",
        "hops between chips are priced as hops between tiles of one",
        "graded messages do not exist on Loihi 1; relays wider than 8 bits exceed the high end",
        "SANA-FE counts synapses whose weight is zero where a network lists them; we count weights "
        "that are not zero",
    ),
    chip="loihi1",
    static=LOIHI1_STATIC,
)
