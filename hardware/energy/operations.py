"""What is counted: the operations that a cost table can price.

Most operations are *basic*: every cost table prices each of them or says why it does not. The
others are finer: they split or repeat a basic one for tables that distinguish more (the kind of a
synapse, who sent a spike), or they need to know where on a chip the neurons lie. A table
that prices a finer one must not price the basic one too; `REFINES` says which belong together.
"""

from __future__ import annotations

from enum import StrEnum


class Operation(StrEnum):
    """One kind of operation; the value is its name in reports and in files of costs."""

    # Basic. Relays and readouts are apart from LIF neurons: they have no threshold.
    ACCUMULATE = "accumulates"
    MULTIPLY_ACCUMULATE = "multiply_accumulates"
    WEIGHT_READ = "weight_reads"
    NEURON_UPDATE_ACTIVE = "neuron_updates_active"
    NEURON_UPDATE_IDLE = "neuron_updates_idle"
    RELAY_UPDATE_ACTIVE = "relay_updates_active"
    RELAY_UPDATE_IDLE = "relay_updates_idle"
    SPIKE = "spikes_sent"
    GRADED_MESSAGE = "graded_messages_sent"
    MEMBRANE_READ = "membrane_reads"
    MEMBRANE_WRITE = "membrane_writes"

    # Accumulates and multiply-accumulates by the kind of the synapse.
    ACCUMULATE_DENSE = "accumulates_dense"
    ACCUMULATE_SPARSE = "accumulates_sparse"
    ACCUMULATE_CONVOLUTION = "accumulates_convolution"
    MULTIPLY_ACCUMULATE_DENSE = "multiply_accumulates_dense"
    MULTIPLY_ACCUMULATE_SPARSE = "multiply_accumulates_sparse"
    MULTIPLY_ACCUMULATE_CONVOLUTION = "multiply_accumulates_convolution"

    # A read and a write of the target's membrane for each synaptic operation.
    EVENT_UPDATE = "membrane_updates_by_event"
    # Spikes of LIF neurons: those of inputs left out.
    NEURON_SPIKE = "spikes_of_neurons"

    # Counted only with a layout on a chip.
    STATE_CHANGE = "state_changes"
    CORE_MESSAGE = "core_messages"
    HOP_EAST_WEST = "hops_east_west"
    HOP_NORTH_SOUTH = "hops_north_south"
    GRADED_CORE_MESSAGE = "graded_core_messages"
    GRADED_HOP_EAST_WEST = "graded_hops_east_west"
    GRADED_HOP_NORTH_SOUTH = "graded_hops_north_south"


#: Finer operation -> the basic one that it splits or repeats.
REFINES = {
    Operation.ACCUMULATE_DENSE: Operation.ACCUMULATE,
    Operation.ACCUMULATE_SPARSE: Operation.ACCUMULATE,
    Operation.ACCUMULATE_CONVOLUTION: Operation.ACCUMULATE,
    Operation.MULTIPLY_ACCUMULATE_DENSE: Operation.MULTIPLY_ACCUMULATE,
    Operation.MULTIPLY_ACCUMULATE_SPARSE: Operation.MULTIPLY_ACCUMULATE,
    Operation.MULTIPLY_ACCUMULATE_CONVOLUTION: Operation.MULTIPLY_ACCUMULATE,
    Operation.NEURON_SPIKE: Operation.SPIKE,
}

#: Operations that only a layout on a chip lets us count.
PLACED = (
    Operation.STATE_CHANGE,
    Operation.CORE_MESSAGE,
    Operation.HOP_EAST_WEST,
    Operation.HOP_NORTH_SOUTH,
    Operation.GRADED_CORE_MESSAGE,
    Operation.GRADED_HOP_EAST_WEST,
    Operation.GRADED_HOP_NORTH_SOUTH,
)

#: Operations that every table prices, or says why it does not.
BASIC = tuple(
    operation
    for operation in Operation
    if operation not in REFINES
    and operation not in PLACED
    and operation is not Operation.EVENT_UPDATE
)

#: Those that are counted without a layout.
UNPLACED = tuple(operation for operation in Operation if operation not in PLACED)
