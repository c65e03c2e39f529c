"""The intermediate representation: plain data, its file format and its meaning."""

from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import LIF, Input, Readout, Relay
from hardware.ir.reference import run_reference
from hardware.ir.synapses import Conv2d, Dense, Sparse, one_to_one

__all__ = [
    "LIF",
    "Conv2d",
    "Dense",
    "Input",
    "Readout",
    "Relay",
    "Sparse",
    "SpikeGraph",
    "one_to_one",
    "run_reference",
]
