"""Grouped dispatch: which rows an expert must compute, and in which order its neurons need them.

An expert has to remember a membrane for every token that chose it. Its neurons have no current at a
step where the token chose others: they decay and cannot spike. So nothing happens before the first
choice of a (token, expert) pair, nothing that counts after the last: a pair is a *sequence* from its
first to its last choice, and its start may be moved to step 0. With gates that are held, all
sequences last as long as the window; with gates per step most last one or two steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class DispatchPlan:
    """The R chosen rows, ordered by expert, then by token, then by step; and the neurons' sequences.

    Attributes:
        rows: (R,) index of the (step, token): step * tokens + token.
        gates: (R,) index of the gate: (step * tokens + token) * E + expert.
        rows_per_expert: how many of the rows belong to each expert, in order.
        groups: (sequences, steps) of the sequences that run together; a group has
            sequences * steps slots, sequence by sequence, after those of the groups before it.
        slots: (R,) the slot of each row, or None where slots and rows are the same thing.
    """

    rows: Int[Tensor, " R"]
    gates: Int[Tensor, " R"]
    rows_per_expert: list[int]
    groups: list[tuple[int, int]]
    slots: Int[Tensor, " R"] | None

    @property
    def num_slots(self) -> int:
        """Slots of all groups: rows, and steps of a sequence at which its token chose others."""
        return sum(sequences * steps for sequences, steps in self.groups)


def plan_dispatch(chosen_TPE: Bool[Tensor, "T P E"]) -> DispatchPlan:
    """Sort the choices by expert, and group their sequences by length.

    The lengths of groups are powers of two (and the longest of all): few groups, and fewer than
    twice the steps needed.

    Args:
        chosen_TPE: whether token P (of all images) chooses expert E at step T.
    """
    steps, tokens, experts = chosen_TPE.shape
    chosen_EPT = chosen_TPE.permute(2, 1, 0)
    expert_Q, token_Q = chosen_EPT.any(-1).nonzero().unbind(1)  # Q sequences, ordered by expert
    chosen_QT = chosen_EPT[expert_Q, token_Q]
    numbers_QT = chosen_QT.to(torch.uint8)
    first_Q = numbers_QT.argmax(1)
    length_Q = steps - numbers_QT.flip(1).argmax(1) - first_Q

    lengths = _group_lengths(int(length_Q.max()) if len(length_Q) else 1)
    length_L = torch.tensor(lengths, device=length_Q.device)
    group_Q = torch.searchsorted(length_L, length_Q)
    sequences_L = torch.bincount(group_Q, minlength=len(lengths))
    slots_L = sequences_L * length_L
    start_Q = (slots_L.cumsum(0) - slots_L)[group_Q] + _rank(group_Q, sequences_L) * length_L[
        group_Q
    ]

    q_R, t_R = chosen_QT.nonzero().unbind(1)
    rows_R = t_R * tokens + token_Q[q_R]
    slot_R = start_Q[q_R] + t_R - first_Q[q_R]
    groups = [(n, length) for n, length in zip(sequences_L.tolist(), lengths, strict=True) if n]
    without_gaps = len(slot_R) == sum(n * length for n, length in groups)
    return DispatchPlan(
        rows=rows_R,
        gates=rows_R * experts + expert_Q[q_R],
        rows_per_expert=chosen_TPE.sum((0, 1)).tolist(),
        groups=groups,
        slots=None if without_gaps and len(groups) == 1 else slot_R,
    )


def _group_lengths(longest: int) -> list[int]:
    """1, 2, 4, ... and the greatest length itself."""
    return [2**i for i in range(longest.bit_length()) if 2**i < longest] + [longest]


def _rank(group_Q: Tensor, size_L: Tensor) -> Tensor:
    """(Q,) how many earlier members its group has."""
    order = group_Q.argsort(stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    return rank - (size_L.cumsum(0) - size_L)[group_Q]
