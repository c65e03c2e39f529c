"""Top-k without graded spikes: comparators receive rows of score differences instead of relayed scores.

A comparator fires if C_j - C_e is positive, and C = W x is linear in binary spikes: so it can receive the
integers W_j - W_e from the spikes directly. Weights are quantised first and subtracted after: all
comparisons are then of the same integers C, and exactly one order of the experts results. Differences that
were rounded one by one could let two gates win, or none.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.sparse import csr_matrix

from hardware.errors import GraphError
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import Input, Relay
from hardware.ir.synapses import AnySynapse, Sparse
from hardware.passes.balance_delays import balance_delays
from hardware.passes.grid import HIGHEST_EXPONENT, WeightGrid


def scores_to_rows(graph: SpikeGraph) -> SpikeGraph:
    """The same gates without score relays. To be run after `quantise`, which refuses its result.

    A difference that one 8-bit weight cannot hold is split over parallel synapses. In floating point
    the sums have another order than the relays' have: scores that agree to the last bits may tie otherwise.

    Args:
        graph: float or fixed, as `lower` or `quantise` make it.

    Raises:
        GraphError: a synapse onto scores, or from them, whose sums are floored.
    """
    scores = {p.name for p in graph.of_kind(Relay) if p.role == "score"}
    if not scores:
        return graph
    synapses: list[AnySynapse] = []
    for synapse in graph.synapses:
        if synapse.source in scores:
            for before in graph.incoming(synapse.source):
                synapses += _rows(graph, before, synapse)
        elif synapse.target not in scores:
            synapses.append(synapse)
    rewritten = graph.with_(
        populations=[p for p in graph.populations.values() if p.name not in scores],
        synapses=synapses,
    )
    return balance_delays(rewritten)


def _rows(graph: SpikeGraph, before: AnySynapse, after: AnySynapse) -> Iterator[Sparse]:
    """The synapses from what a score hears to what hears the score."""
    matrix = csr_matrix(_whole(graph, after) @ _whole(graph, before)).tocoo()
    matrix.eliminate_zeros()
    source = graph.populations[before.source]
    constant = isinstance(source, Input) and source.kind == "constant"
    parts = split_weights(matrix.data) if graph.arithmetic == "fixed" else [(matrix.data, 0)]
    for mantissa, exponent in parts:
        used = mantissa != 0
        yield Sparse(
            source=before.source,
            target=after.target,
            rows=matrix.row[used].astype(np.int64),
            columns=matrix.col[used].astype(np.int64),
            weight=mantissa[used],
            delay=1 if constant else before.delay + after.delay,
            exponent=exponent,
            expert=before.expert,
        )


def _whole(graph: SpikeGraph, synapse: AnySynapse) -> csr_matrix:
    """The synapse's weights with their exponent: whole numbers in fixed point."""
    matrix = graph.matrix(synapse)
    if graph.arithmetic == "float":
        return matrix
    weight = matrix.data.astype(np.int64)
    if synapse.exponent < 0 and (weight % 2**-synapse.exponent).any():
        raise GraphError(
            f"synapse '{synapse.source}' -> '{synapse.target}': with exponent {synapse.exponent} its sums "
            f"are floored, so that scores cannot become rows; quantise the float graph, which never floors"
        )
    whole = weight << synapse.exponent if synapse.exponent >= 0 else weight >> -synapse.exponent
    return csr_matrix((whole, matrix.indices, matrix.indptr), shape=matrix.shape)


def split_weights(weights: np.ndarray) -> list[tuple[np.ndarray, int]]:
    """Integers as a sum of few 8-bit mantissas times powers of two, the coarse ones first.

    Args:
        weights: (n,) integers.

    Returns:
        (mantissas (n,) even int32 within +-254, exponent) such that the sum of mantissa * 2^exponent is
        `weights`.
    """
    grid = WeightGrid()
    parts: list[tuple[np.ndarray, int]] = []
    rest = weights.astype(np.int64)
    while rest.any():
        common = int(np.bitwise_or.reduce(np.abs(rest)))
        finest = min((common & -common).bit_length() - 2, HIGHEST_EXPONENT)
        needed = grid.exponent(rest.astype(np.float64))
        exponent = min(max(finest, needed), HIGHEST_EXPONENT)
        mantissa = grid.mantissa(rest.astype(np.float64), exponent)
        parts.append((mantissa, exponent))
        rest = rest - _value(mantissa, exponent)
    return parts


def _value(mantissa: np.ndarray, exponent: int) -> np.ndarray:
    """mantissa * 2^exponent, exactly: mantissas are even, and the exponent is at least -1."""
    whole = mantissa.astype(np.int64)
    return whole << exponent if exponent >= 0 else whole >> -exponent
