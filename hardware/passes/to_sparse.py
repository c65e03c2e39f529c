"""Convolutions as listed connections, for backends whose convolution does not keep Loihi's rule."""

from __future__ import annotations

import numpy as np

from hardware.ir.graph import SpikeGraph
from hardware.ir.synapses import AnySynapse, Conv2d, Sparse


def to_sparse(graph: SpikeGraph, synapse: AnySynapse) -> AnySynapse:
    """A convolution of the graph as `Sparse`; other synapses as they are."""
    if not isinstance(synapse, Conv2d):
        return synapse
    matrix = graph.matrix(synapse).tocoo()
    return Sparse(
        source=synapse.source,
        target=synapse.target,
        rows=matrix.row.astype(np.int64),
        columns=matrix.col.astype(np.int64),
        weight=matrix.data,
        delay=synapse.delay,
        exponent=synapse.exponent,
        expert=synapse.expert,
    )
