"""The mixture layer as populations: the router's gates, and the experts behind them."""

from __future__ import annotations

import numpy as np

from hardware.errors import LoweringError
from hardware.ir.synapses import AnySynapse, Expert, Sparse
from hardware.lowering.builder import Builder, Stream, Tap, token_synapse
from hardware.lowering.fold import fold_expert, fold_linear
from hardware.lowering.router import lower_router
from hardware.lowering.views import gated_expert, hidden_expert, token_map
from spikingmoe.layers.expert import Experts, SpikingMLP
from spikingmoe.layers.moe import DenseMLP, ExpertLink, MixtureOfExperts
from spikingmoe.layers.router import Router


def lower_mixture(builder: Builder, moe: MixtureOfExperts, path: str, stream: Stream) -> str:
    """X = LIF(U), the router's gates, the experts behind them, their sum onto the stream.

    The router sees the prompt `builder.prompt`.

    Returns:
        The population X that the mixture (the first link of a chain) reads.
    """
    if moe.over_time:
        raise LoweringError(
            path,
            "chain='time' feeds the output of step t into step t + 1: a cycle of several "
            "populations; use chain='depth'",
        )
    x = _lower_link(builder, moe, path, stream)
    if moe.shared is not None:
        _lower_mlp(builder, moe.shared, f"{path}.shared", x, stream)
    for index, link in enumerate(moe.links):
        assert isinstance(link, ExpertLink)
        builder.relay_stream(stream)
        _lower_link(builder, link, f"{path}.links.{index}", stream)
    return x


def _lower_link(builder: Builder, link: ExpertLink, path: str, stream: Stream) -> str:
    if not isinstance(link.router, Router):
        raise LoweringError(
            f"{path}.router", f"no rule for {type(link.router).__name__}; use Router"
        )
    if not isinstance(link.experts, Experts):
        raise LoweringError(f"{path}.experts", f"no rule for {type(link.experts).__name__}")
    view = token_map(stream.shape[0])
    x = builder.read_stream(stream, f"{path}.x", link.neuron, f"{path}.neuron", view)
    gate = lower_router(builder, link.router, path, x, builder.prompt)
    _lower_experts(builder, link.experts, path, x, gate, stream)
    return x


def _gate_synapse(
    builder: Builder,
    gate: str,
    target: str,
    weight: np.ndarray,
    shape: tuple[int, ...],
    expert: Expert | None = None,
) -> AnySynapse:
    """Gates drive every channel of a map of `shape` by `weight` (C, E); image-wise ones every token."""
    if builder.populations[gate].shape[:2] == shape[:2]:
        return token_synapse(gate, target, weight, expert)
    channel, index = np.nonzero(weight)
    tokens = shape[0] * shape[1]
    return Sparse(
        source=gate,
        target=target,
        rows=(np.arange(tokens)[:, None] * shape[-1] + channel).ravel(),
        columns=np.tile(index, tokens),
        weight=np.tile(weight[channel, index], tokens),
        expert=expert,
    )


def _lower_experts(
    builder: Builder, experts: Experts, path: str, x: str, gate: str, stream: Stream
) -> None:
    side, channels = stream.shape[0], stream.shape[-1]
    count, width = experts.weight1.shape[:2]
    output_bias = np.zeros((channels, count))
    for e in range(count):
        weight1, bias1 = fold_expert(experts.weight1, experts.norm1, e)
        weight2, bias2 = fold_expert(experts.weight2, experts.norm2, e)
        opens = np.zeros((1, count))
        opens[0, e] = 1.0
        name = f"{path}.experts.{e}"
        gated = builder.logic(
            f"{name}.gated",
            stream.shape,
            "and",
            1.5,
            tap=Tap(f"{path}.experts.gate", gated_expert(side, e)),
        )
        builder.direct(x, gated)
        opens_all = np.repeat(opens, channels, axis=0)
        builder.synapses.append(_gate_synapse(builder, gate, gated, opens_all, stream.shape))
        hidden_shape = (side, side, width)
        hidden = builder.lif(
            f"{name}.hidden",
            hidden_shape,
            experts.neuron,
            f"{path}.experts.neuron",
            hidden_expert(side, e),
        )
        builder.token_wise(gated, hidden, weight1, (path, e))
        bias = bias1[:, None] * opens
        builder.synapses.append(_gate_synapse(builder, gate, hidden, bias, hidden_shape, (path, e)))
        builder.stream_term(
            stream,
            lambda target, hidden=hidden, weight=weight2, e=e: token_synapse(
                hidden, target, weight, (path, e)
            ),
        )
        output_bias[:, e] = bias2
    builder.stream_term(
        stream, lambda target: _gate_synapse(builder, gate, target, output_bias, stream.shape)
    )


def lower_dense_mlp(builder: Builder, dense: DenseMLP, path: str, stream: Stream) -> str:
    """One expert that is always on: no gate, plain biases. Returns the population X it reads."""
    view = token_map(stream.shape[0])
    x = builder.read_stream(stream, f"{path}.x", dense.neuron, f"{path}.neuron", view)
    _lower_mlp(builder, dense.mlp, f"{path}.mlp", x, stream, name=path)
    return x


def _lower_mlp(
    builder: Builder, mlp: SpikingMLP, path: str, x: str, stream: Stream, name: str | None = None
) -> None:
    """Args: path, of the module; name, before `.hidden` (the path unless given)."""
    if not isinstance(mlp, SpikingMLP):
        raise LoweringError(path, f"no rule for {type(mlp).__name__}; use SpikingMLP")
    side = stream.shape[0]
    weight1, bias1 = fold_linear(mlp.up)
    weight2, bias2 = fold_linear(mlp.down)
    hidden = builder.lif(
        f"{name or path}.hidden",
        (side, side, len(weight1)),
        mlp.neuron,
        f"{path}.neuron",
        token_map(side),
        bias1,
    )
    builder.token_wise(x, hidden, weight1)
    stream.bias = stream.bias + bias2
    builder.stream_term(stream, lambda target: token_synapse(hidden, target, weight2))
