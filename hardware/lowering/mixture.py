"""The mixture layer as populations: scores, exact top-k, window hold, gated experts."""

from __future__ import annotations

import numpy as np

from hardware.errors import LoweringError
from hardware.ir.nodes import LIF, Relay
from hardware.lowering.builder import Builder, Stream, Tap, token_synapse
from hardware.lowering.fold import fold_expert, fold_linear, to_numpy
from hardware.lowering.views import (
    at_step,
    comparator_map,
    gated_expert,
    hidden_expert,
    scores_map,
    token_map,
)
from spikingmoe.layers.expert import Experts, SpikingMLP
from spikingmoe.layers.moe import DenseMLP, MixtureOfExperts
from spikingmoe.layers.router import Router

#: A bias that turns a tie (difference exactly 0) into a win and changes no other comparison:
#: doubles that differ do so by at least this much.
TIE = float(np.nextafter(0.0, 1.0))


def lower_mixture(
    builder: Builder, moe: MixtureOfExperts, path: str, stream: Stream, prompt: str
) -> None:
    """X = LIF(U), the router's gates, the experts behind them, their sum onto the stream."""
    if not isinstance(moe.router, Router):
        raise LoweringError(
            f"{path}.router", f"no rule for {type(moe.router).__name__}; use Router"
        )
    if not isinstance(moe.experts, Experts):
        raise LoweringError(f"{path}.experts", f"no rule for {type(moe.experts).__name__}")
    view = token_map(stream.shape[0])
    x = builder.read_stream(stream, f"{path}.x", moe.neuron, f"{path}.neuron", view)
    gate = _lower_router(builder, moe.router, path, x, prompt)
    _lower_experts(builder, moe.experts, path, x, gate, stream)


def _lower_router(builder: Builder, router: Router, path: str, x: str, prompt: str) -> str:
    """Scores as relays, a comparator per ordered pair, a gate that counts lost comparisons."""
    side = builder.populations[x].shape[0]
    from_token = to_numpy(router.from_token.weight)
    experts, k = len(from_token), router.choose.k
    choose = f"{path}.router.choose"
    builder.gate_limits[path] = k

    score = builder.add(
        Relay(name=f"{path}.score", shape=(side, side, experts), role="score"),
        Tap(choose, scores_map(side)),
    )
    builder.token_wise(x, score, from_token)
    builder.dense(prompt, score, np.tile(to_numpy(router.from_prompt.weight), (side**2, 1)))
    bias = to_numpy(router.homeostatic_bias)
    if bias.any():
        builder.dense(builder.constant(), score, np.tile(bias[:, None], (side**2, 1)))

    pairs = [(e, j) for e in range(experts) for j in range(experts) if j != e]
    compare = builder.add(
        LIF(
            name=f"{path}.compare",
            shape=(side, side, len(pairs)),
            membrane_decay=0.0,
            threshold=np.asarray(0.0),
            bias=np.broadcast_to(
                [TIE if j < e else 0.0 for e, j in pairs], (side, side, len(pairs))
            ).copy(),
            role="comparator",
        ),
        Tap(choose, comparator_map(side, pairs)),
    )
    difference, lost = np.zeros((len(pairs), experts)), np.zeros((experts, len(pairs)))
    for row, (e, j) in enumerate(pairs):
        difference[row, j], difference[row, e] = 1.0, -1.0
        lost[e, row] = -1.0
    builder.token_wise(score, compare, difference)

    gate = builder.logic(
        f"{path}.gate",
        (side, side, experts),
        "gate",
        0.5,  # k - (comparisons lost) >= 1
        bias=float(k),
        tap=Tap(choose, token_map(side)),
    )
    builder.token_wise(compare, gate, lost)
    return gate if router.hold is None else _lower_hold(builder, router, path, gate)


def _lower_hold(builder: Builder, router: Router, path: str, gate: str) -> str:
    """A latch per gate, set at the step of the decision and cleared by the clock at step 0."""
    assert router.hold is not None
    shape, step, hold = builder.populations[gate].shape, router.hold.step, f"{path}.router.hold"
    n = int(np.prod(shape))
    decided = builder.logic(
        f"{path}.decided", shape, "and", 1.5, tap=Tap(hold, at_step(shape[0], step))
    )
    builder.direct(gate, decided)
    builder.dense(builder.clock(step), decided, np.ones((n, 1)))
    latch = builder.logic(f"{path}.latch", shape, "latch", 0.5, tap=Tap(hold, token_map(shape[0])))
    builder.direct(decided, latch, 2.0)
    builder.direct(latch, latch, 1.0)
    builder.dense(builder.clock(0), latch, -np.ones((n, 1)))
    return latch


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
        builder.token_wise(gate, gated, np.repeat(opens, channels, axis=0))
        hidden = builder.lif(
            f"{name}.hidden",
            (side, side, width),
            experts.neuron,
            f"{path}.experts.neuron",
            hidden_expert(side, e),
        )
        builder.token_wise(gated, hidden, weight1, (path, e))
        builder.token_wise(gate, hidden, bias1[:, None] * opens, (path, e))
        builder.stream_term(
            stream,
            lambda target, hidden=hidden, weight=weight2, e=e: token_synapse(
                hidden, target, weight, (path, e)
            ),
        )
        output_bias[:, e] = bias2
    builder.stream_term(stream, lambda target: token_synapse(gate, target, output_bias))


def lower_dense_mlp(builder: Builder, dense: DenseMLP, path: str, stream: Stream) -> None:
    """One expert that is always on: no gate, plain biases."""
    mlp = dense.mlp
    if not isinstance(mlp, SpikingMLP):
        raise LoweringError(f"{path}.mlp", f"no rule for {type(mlp).__name__}; use SpikingMLP")
    side = stream.shape[0]
    view = token_map(side)
    x = builder.read_stream(stream, f"{path}.x", dense.neuron, f"{path}.neuron", view)
    weight1, bias1 = fold_linear(mlp.up)
    weight2, bias2 = fold_linear(mlp.down)
    hidden = builder.lif(
        f"{path}.hidden", (side, side, len(weight1)), mlp.neuron, f"{path}.mlp.neuron", view, bias1
    )
    builder.token_wise(x, hidden, weight1)
    stream.bias = stream.bias + bias2
    builder.stream_term(stream, lambda target: token_synapse(hidden, target, weight2))
