"""A router as populations: scores, the rule that chooses, window hold."""

from __future__ import annotations

import itertools

import numpy as np

from hardware.errors import LoweringError
from hardware.ir.nodes import LIF, Relay
from hardware.ir.synapses import Sparse
from hardware.lowering.builder import Builder, Tap
from hardware.lowering.fold import to_numpy
from hardware.lowering.views import (
    at_step,
    choice_map,
    comparator_map,
    scores_map,
    token_comparators,
    token_map,
)
from spikingmoe.layers.gates import (
    DynamicGate,
    ExpertChoiceGate,
    HashGate,
    HierarchicalGate,
    ThresholdGate,
    TopKGate,
)
from spikingmoe.layers.router import Router

#: A bias that turns a tie (difference exactly 0) into a win and changes no other comparison:
#: doubles that differ do so by at least this much.
TIE = float(np.nextafter(0.0, 1.0))


def lower_router(builder: Builder, router: Router, path: str, x: str, prompt: str | None) -> str:
    """The gates of one router as a population: (side, side, E), or (1, 1, E) for image-wise ones.

    Args:
        x: the population of the token's spikes, (side, side, D). prompt: of the prompt, if any.
    """
    if router.input == "membrane":
        raise LoweringError(
            f"{path}.router",
            "router_input='membrane' scores real-valued membranes, which no spike carries; "
            "use router_input='spikes'",
        )
    lower_rule = _RULES.get(type(router.choose))
    if lower_rule is None:
        raise LoweringError(
            f"{path}.router.choose",
            f"no rule for {type(router.choose).__name__}; "
            f"use one of {', '.join(sorted(t.__name__ for t in _RULES))}",
        )
    builder.gate_limits[path] = router.choose.max_open
    gate = lower_rule(builder, router, path, x, prompt)
    return gate if router.hold is None else _lower_hold(builder, router, path, gate)


def _gate_side(builder: Builder, router: Router, x: str) -> int:
    return 1 if router.by_image else builder.populations[x].shape[0]


def _bias(router: Router) -> np.ndarray:
    bias = to_numpy(router.homeostatic_bias)
    if router.learned_threshold is not None:
        bias = bias - to_numpy(router.learned_threshold)
    return bias


def _add_scores(builder: Builder, router: Router, target: str, x: str, prompt: str | None) -> None:
    """The synapses whose sum is the score, without its bias, onto a map (side, side, channels)."""
    side, x_side = builder.populations[target].shape[0], builder.populations[x].shape[0]
    if router.from_prompt is not None:
        assert prompt is not None
        weight = to_numpy(router.from_prompt.weight)
        builder.dense(prompt, target, np.tile(weight, (side**2, 1)))
    if router.from_token is not None:
        weight = to_numpy(router.from_token.weight)
        if router.by_image:
            builder.dense(x, target, np.tile(weight / x_side**2, (1, x_side**2)))
        else:
            builder.token_wise(x, target, weight)


def _score_relays(builder: Builder, router: Router, path: str, x: str, prompt: str | None) -> str:
    """Scores as graded relays: quantised once, compared after, so that comparisons stay exact."""
    side, bias = _gate_side(builder, router, x), _bias(router)
    score = builder.add(
        Relay(name=f"{path}.score", shape=(side, side, len(bias)), role="score"),
        Tap(f"{path}.router.choose", scores_map(side)),
    )
    _add_scores(builder, router, score, x, prompt)
    if bias.any():
        builder.dense(builder.constant(), score, np.tile(bias[:, None], (side**2, 1)))
    return score


def _comparators(shape: tuple[int, ...], name: str, ties: np.ndarray) -> LIF:
    """A neuron per ordered pair: it fires if the rival beats the candidate."""
    return LIF(
        name=name,
        shape=shape,
        membrane_decay=0.0,
        threshold=np.asarray(0.0),
        bias=np.broadcast_to(np.where(ties, TIE, 0.0), shape).copy(),
        role="comparator",
    )


def _contest(
    builder: Builder, path: str, score: str, rivals: list[tuple[int, int]]
) -> tuple[str, np.ndarray]:
    """Comparators for pairs (candidate, rival) of score channels, and how each pair's win counts.

    Returns:
        The comparators, and weights (channels, pairs): -1 for each comparison that a channel loses.
    """
    side, _, channels = builder.populations[score].shape
    compare = builder.add(
        _comparators(
            (side, side, len(rivals)),
            f"{path}.compare",
            np.asarray([rival < candidate for candidate, rival in rivals]),
        ),
        Tap(f"{path}.router.choose", comparator_map(side, rivals)),
    )
    difference, lost = np.zeros((len(rivals), channels)), np.zeros((channels, len(rivals)))
    for row, (candidate, rival) in enumerate(rivals):
        difference[row, rival], difference[row, candidate] = 1.0, -1.0
        lost[candidate, row] = -1.0
    builder.token_wise(score, compare, difference)
    return compare, lost


def _lower_top_k(builder: Builder, router: Router, path: str, x: str, prompt: str | None) -> str:
    """A gate opens if it has lost fewer than k comparisons: k - lost >= 1."""
    score = _score_relays(builder, router, path, x, prompt)
    side, _, experts = builder.populations[score].shape
    compare, lost = _contest(builder, path, score, list(itertools.permutations(range(experts), 2)))
    gate = builder.logic(
        f"{path}.gate",
        (side, side, experts),
        "gate",
        0.5,
        bias=float(router.choose.k),
        tap=Tap(f"{path}.router.choose", token_map(side)),
    )
    builder.token_wise(compare, gate, lost)
    return gate


def _lower_hierarchical(
    builder: Builder, router: Router, path: str, x: str, prompt: str | None
) -> str:
    """Two contests, of the groups and within each group; a gate is the AND of both choices."""
    rule = router.choose
    assert isinstance(rule, HierarchicalGate)
    score = _score_relays(builder, router, path, x, prompt)
    side, _, channels = builder.populations[score].shape
    groups, experts = rule.groups, rule.experts
    of_group = np.arange(experts) // (experts // groups)
    contests = [list(range(groups))]
    contests += [[groups + int(e) for e in np.flatnonzero(of_group == g)] for g in range(groups)]
    rivals = [pair for contest in contests for pair in itertools.permutations(contest, 2)]
    compare, lost = _contest(builder, path, score, rivals)
    winners = np.repeat([1.0, float(rule.k)], [groups, experts])
    choice = builder.logic(
        f"{path}.choice",
        (side, side, channels),
        "choice",
        0.5,
        bias=np.broadcast_to(winners, (side, side, channels)).copy(),
        tap=Tap(f"{path}.router.choose", choice_map(side, groups, rule.k)),
    )
    builder.token_wise(compare, choice, lost)
    both = np.zeros((experts, channels))
    both[np.arange(experts), of_group] = both[np.arange(experts), groups + np.arange(experts)] = 1.0
    gate = builder.logic(
        f"{path}.gate",
        (side, side, experts),
        "gate",
        1.5,
        tap=Tap(f"{path}.router.choose", token_map(side)),
    )
    builder.token_wise(choice, gate, both)
    return gate


def _lower_expert_choice(
    builder: Builder, router: Router, path: str, x: str, prompt: str | None
) -> str:
    """For each expert a contest of all tokens: comparators (N, N - 1, E)."""
    rule = router.choose
    assert isinstance(rule, ExpertChoiceGate)
    score = _score_relays(builder, router, path, x, prompt)
    side, _, experts = builder.populations[score].shape
    tokens = side**2
    token = np.repeat(np.arange(tokens), tokens - 1).reshape(tokens, tokens - 1)
    rival = np.arange(tokens - 1)[None, :] + (np.arange(tokens - 1)[None, :] >= token)
    compare = builder.add(
        _comparators((tokens, tokens - 1, experts), f"{path}.compare", (rival < token)[..., None]),
        Tap(f"{path}.router.choose", token_comparators(token, rival)),
    )
    expert = np.arange(experts)
    candidates = (token[..., None] * experts + expert).ravel()
    rivals = (rival[..., None] * experts + expert).ravel()
    pair = np.arange(len(rivals))
    one = np.ones(len(pair))
    builder.synapses.append(
        Sparse(
            source=score,
            target=compare,
            rows=np.concatenate([pair, pair]),
            columns=np.concatenate([rivals, candidates]),
            weight=np.concatenate([one, -one]),
        )
    )
    gate = builder.logic(
        f"{path}.gate",
        (side, side, experts),
        "gate",
        0.5,
        bias=float(rule.capacity(tokens)),
        tap=Tap(f"{path}.router.choose", token_map(side)),
    )
    builder.synapses.append(
        Sparse(source=compare, target=gate, rows=candidates, columns=pair, weight=-one)
    )
    return gate


def _lower_threshold(
    builder: Builder, router: Router, path: str, x: str, prompt: str | None
) -> str:
    """The gate neuron itself sums the score and fires if it is positive."""
    side, bias = _gate_side(builder, router, x), _bias(router)
    gate = builder.logic(
        f"{path}.gate",
        (side, side, len(bias)),
        "threshold",
        0.0,
        bias=np.broadcast_to(bias, (side, side, len(bias))).copy(),
        tap=Tap(f"{path}.router.choose", token_map(side)),
    )
    _add_scores(builder, router, gate, x, prompt)
    return gate


_RULES = {
    TopKGate: _lower_top_k,
    HashGate: _lower_top_k,
    ThresholdGate: _lower_threshold,
    DynamicGate: _lower_threshold,
    ExpertChoiceGate: _lower_expert_choice,
    HierarchicalGate: _lower_hierarchical,
}


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
