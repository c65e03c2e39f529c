"""NIR, the Neuromorphic Intermediate Representation (Pedersen 2024): export and import of graphs.

    graph = from_nir(read_nir("model.nir"), time_steps=8)     # any framework's, onto Lava through our IR
    write_nir("x.nir", to_nir(graph))                         # a lowered model, for any framework

What would lose its meaning is refused with the node's name (`NirError`).
"""

from __future__ import annotations

from hardware.nir.export import to_nir, write_nir
from hardware.nir.importing import from_nir
from hardware.nir.reading import read_nir

__all__ = ["from_nir", "read_nir", "to_nir", "write_nir"]
