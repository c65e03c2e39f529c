"""A readout that weighs all tokens alike reads their sum instead: one axon per channel, not per spike.

The logits are W mean over tokens of the spikes, so that a stored column of W stands there once per token:
of an 8x8 map of 384 channels a class takes 24,576 words, more than the synapse memory of a core. A graded
relay that adds up the tokens of each channel makes it 384. The products are the same integers.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from hardware.errors import GraphError
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import LIF, Readout, Relay
from hardware.ir.synapses import AnySynapse, Dense, Sparse
from hardware.passes.balance_delays import balance_delays


def pool_tokens(graph: SpikeGraph) -> SpikeGraph:
    """The same logits from counts of spikes per channel, a step later; for chips with graded spikes.

    Before `quantise` or after it, the fixed-point graph has the same integers, and its logits are equal bit
    for bit to those of the direct readout; in floating point their sums have another order.

    Raises:
        GraphError: no readout that weighs the tokens of a map of LIF neurons alike.
    """
    added: list[Relay] = []
    synapses: list[AnySynapse] = []
    for synapse in graph.synapses:
        weight = _weight_of_a_token(graph, synapse)
        if weight is None:
            synapses.append(synapse)
            continue
        taken = {*graph.populations, *(p.name for p in added)}
        relay = Relay(name=_new_name(synapse.target, taken), shape=weight.shape[1:], role="count")
        added.append(relay)
        synapses.append(_sum_of_tokens(graph, synapse.source, relay))
        synapses.append(replace(synapse, source=relay.name, weight=weight))
    if not added:
        raise GraphError(
            "no readout weighs the tokens of a map of LIF neurons alike: there is nothing to pool"
        )
    populations = [*graph.populations.values(), *added]
    return balance_delays(graph.with_(populations=populations, synapses=synapses))


def reads_tokens_alike(graph: SpikeGraph, name: str) -> bool:
    """Whether `pool_tokens` has something to pool for this population."""
    return any(_weight_of_a_token(graph, s) is not None for s in graph.incoming(name))


def _new_name(readout: str, taken: set[str]) -> str:
    names = (f"{readout}.pool{number or ''}" for number in itertools.count())
    return next(name for name in names if name not in taken)


def _weight_of_a_token(graph: SpikeGraph, synapse: AnySynapse) -> np.ndarray | None:
    """(classes, channels) if the synapse repeats them for every token of a map, else None."""
    source, target = (graph.populations[n] for n in (synapse.source, synapse.target))
    if not (isinstance(synapse, Dense) and isinstance(target, Readout) and isinstance(source, LIF)):
        return None
    *_, channels = source.shape
    by_token = synapse.weight.reshape(len(synapse.weight), -1, channels)
    if by_token.shape[1] == 1 or np.any(by_token != by_token[:, :1]):
        return None
    return np.ascontiguousarray(by_token[:, 0])


def _sum_of_tokens(graph: SpikeGraph, source: str, relay: Relay) -> Sparse:
    """Weight 1 from each neuron of a channel to the channel's relay."""
    columns = np.arange(np.prod(graph.populations[source].shape))
    fixed = graph.arithmetic == "fixed"
    one = np.int32(2) if fixed else 1.0  # mantissas are even
    return Sparse(
        source=source,
        target=relay.name,
        rows=columns % relay.shape[0],
        columns=columns,
        weight=np.full(len(columns), one),
        exponent=-1 if fixed else 0,
    )
