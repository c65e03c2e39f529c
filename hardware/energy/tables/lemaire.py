"""Arithmetic, addressing and memory after Lemaire et al. 2022: an analytical model at 45 nm."""

from __future__ import annotations

from typing import Literal

from hardware.energy.band import Band
from hardware.energy.costs import Cost, CostTable, MemoryCost
from hardware.energy.operations import Operation
from hardware.energy.quantised_costs import ArrayMultiplier, QuantisedCosts

LEMAIRE = (
    "Lemaire et al., An analytical estimation of SNN energy efficiency, 2022 (arXiv 2210.13107)"
)
ADD_PJ, MULTIPLY_PJ = 0.1, 3.1  # 32-bit integers
MULTIPLY8_PJ = 0.2
KILOBYTE = 1024.0
SMALL_BYTES, LARGE_BYTES = 8 * KILOBYTE, 1024 * KILOBYTE
SRAM_PJ = ((0.0, 0.0), (SMALL_BYTES, 10.0), (32 * KILOBYTE, 20.0), (LARGE_BYTES, 100.0))
WORD_BYTES = 4
QUEUE_PJ = 10.0 * 1000 * WORD_BYTES / SMALL_BYTES  # a queue of 1,000 messages, interpolated


def _memory(
    holds: Literal["weights", "states"], accesses: int, what: str, word_bytes: int = WORD_BYTES
) -> MemoryCost:
    return MemoryCost(
        holds=holds,
        word_bytes=word_bytes,
        points=SRAM_PJ,
        accesses=accesses,
        low_bytes=SMALL_BYTES,
        high_bytes=LARGE_BYTES,
        source=f"{LEMAIRE}: {what}; SRAM of 8 kB, 32 kB, 1 MB: 10, 20, 100 pJ, interpolated",
        grade="analytical",
        note="value: a memory as large as what it holds, at most 1 MB; low end: spread over memories of "
        "8 kB; high end: a memory of 1 MB",
    )


def _arithmetic(value_pj: float, low_pj: float, high_pj: float, what: str, note: str) -> Cost:
    return Cost(
        value_pj=value_pj,
        low_pj=low_pj,
        high_pj=high_pj,
        source=f"{LEMAIRE}: {what}",
        grade="analytical",
        note=note,
    )


_SYNAPSE = _arithmetic(
    2 * ADD_PJ,
    ADD_PJ,
    2 * ADD_PJ,
    "add 0.1 pJ for the membrane, add 0.1 pJ for the target's address",
    "low end: without addressing",
)
_GRADED_SYNAPSE = _arithmetic(
    MULTIPLY_PJ + 2 * ADD_PJ,
    MULTIPLY_PJ + ADD_PJ,
    MULTIPLY_PJ + 2 * ADD_PJ,
    "multiply 3.1 pJ, add 0.1 pJ, and 0.1 pJ for the target's address",
    "low end: without addressing",
)
_UPDATE = _arithmetic(
    MULTIPLY_PJ + ADD_PJ,
    ADD_PJ,
    MULTIPLY_PJ + 2 * ADD_PJ,
    "leak: multiply 3.1 pJ and add 0.1 pJ per neuron and step",
    "low end: a decay that is a power of two, or none, is a shift; high end: comparing too",
)
_RELAY = _arithmetic(
    ADD_PJ, 0.0, ADD_PJ, "add 0.1 pJ", "a relay or readout is priced as one add; low end: nothing"
)
_MESSAGE = _arithmetic(
    2 * QUEUE_PJ + 2 * MULTIPLY_PJ + ADD_PJ,
    2 * QUEUE_PJ,
    2 * SRAM_PJ[1][1] + 2 * MULTIPLY_PJ + ADD_PJ,
    "write to and read from a queue of 1,000 messages (4.9 pJ each), two multiplies for the first "
    "address of a convolution, an add for the reset",
    "low end: the queue alone; high end: queues of 8 kB",
)

LEMAIRE_TABLE = CostTable(
    name="lemaire",
    title="Arithmetic, addressing and memory at 45 nm (Lemaire 2022, analytical)",
    boundary="arithmetic, addresses, queues of messages, reads of weights, reads and writes of "
    "membranes, per event and per step; without network on chip, control, clock and static power",
    costs={
        Operation.ACCUMULATE: _SYNAPSE,
        Operation.MULTIPLY_ACCUMULATE: _GRADED_SYNAPSE,
        Operation.WEIGHT_READ: _memory("weights", 1, "a weight for each synaptic operation"),
        Operation.EVENT_UPDATE: _memory(
            "states", 2, "the target's potential read and written for each synaptic operation"
        ),
        Operation.NEURON_UPDATE_ACTIVE: _UPDATE,
        Operation.NEURON_UPDATE_IDLE: _UPDATE,
        Operation.RELAY_UPDATE_ACTIVE: _RELAY,
        Operation.RELAY_UPDATE_IDLE: _RELAY,
        Operation.SPIKE: _MESSAGE,
        Operation.GRADED_MESSAGE: _MESSAGE,
        Operation.MEMBRANE_READ: _memory("states", 1, "the potential of each neuron at each step"),
        Operation.MEMBRANE_WRITE: _memory("states", 1, "the potential of each neuron at each step"),
    },
    not_priced={},
    caveats=(
        "the events are ours, one by one; the paper multiplies mean rates by sizes of layers",
        "a population that feeds several synapses puts its message into one queue here",
        "biases are part of the update here; the paper reads them from memory at each step",
        "memories beyond 1 MB are priced as 1 MB",
    ),
    quantised=QuantisedCosts(
        unit=ArrayMultiplier(
            multiply_pj=MULTIPLY8_PJ, add_pj=Band(value=ADD_PJ, low=ADD_PJ, high=2 * ADD_PJ)
        ),
        reads=(
            _memory("weights", 1, "a weight for each multiply-accumulate"),
            _memory("states", 1, "an activation for each multiply-accumulate", word_bytes=1),
        ),
        writes=(_memory("states", 1, "each activation written", word_bytes=1),),
        rescale_pj=Band(value=MULTIPLY8_PJ + ADD_PJ, low=ADD_PJ, high=MULTIPLY_PJ + ADD_PJ),
        source=f"{LEMAIRE}: reads and writes of a conventional layer without reuse, add 0.1 pJ; multiply "
        "of 8 bits 0.2 pJ from Horowitz 2014, where its other constants come from",
        grade="analytical",
        note="the multiplier costs in proportion to its rows, one per bit of the activation; weights in "
        "words of 4 bytes as in the spiking network, activations in bytes; nothing is reused in registers, "
        "which favours the spiking network; low end: memories of 8 kB; high end: of 1 MB",
        boundary="arithmetic, a weight and an activation read per multiply-accumulate, activations rescaled "
        "and written; without network on chip, control, clock and static power",
    ),
)
