"""Grouped dispatch: which rows an expert must compute, and in which order its neurons need them.

An expert has to remember a membrane for every token that chose it. Its neurons have no current at a
step where the token chose others: they decay and cannot spike. So nothing happens before the first
choice of a (token, expert) pair, nothing that counts after the last: a pair is a *sequence* from its
first to its last choice, and its start may be moved to step 0. With gates that are held, all
sequences last as long as the window; with gates per step most last one or two steps.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int, UInt8
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Slots:
    """Where rows stand when sequences of like length run together.

    Attributes:
        groups: (sequences, steps) of the sequences that run together; a group has
            sequences * steps slots, sequence by sequence, after those of the groups before it.
        of_rows: (R,) the slot of each row, or None where slots and rows are the same thing.
    """

    groups: list[tuple[int, int]]
    of_rows: Int[Tensor, " R"] | None

    @property
    def total(self) -> int:
        """Slots of all groups: rows, and steps of a sequence at which its token chose others."""
        return sum(sequences * steps for sequences, steps in self.groups)


@dataclass(frozen=True, kw_only=True)
class DispatchPlan:
    """The R chosen rows, ordered by expert, then by token, then by step; and the neurons' sequences.

    Attributes:
        rows: (R,) index of the (step, token): step * tokens + token.
        gates: (R,) index of the gate: (step * tokens + token) * E + expert.
        steps: (R,) step of each row.
        starts: (Q + 1,) first row of each of the Q sequences, and R.
        gaps: (R,) steps since the row before in the same sequence; 0 where a sequence starts.
        first_sequence: (E + 1,) the first sequence of each expert, and Q.
        rows_per_expert, sequences_per_expert: how many belong to each expert, in order.
        window: steps of the window.
    """

    rows: Int[Tensor, " R"]
    gates: Int[Tensor, " R"]
    steps: Int[Tensor, " R"]
    starts: Int[Tensor, " Q1"]
    gaps: UInt8[Tensor, " R"]
    first_sequence: Int[Tensor, " E1"]
    rows_per_expert: list[int]
    sequences_per_expert: list[int]
    window: int

    @functools.cached_property
    def slots(self) -> Slots:
        """Sequences grouped by length.

        The lengths of groups are powers of two (and the longest of all): few groups, and fewer than
        twice the steps needed.
        """
        first_Q, last_Q = self.starts[:-1], self.starts[1:] - 1
        length_Q = self.steps[last_Q] - self.steps[first_Q] + 1
        lengths = _group_lengths(int(length_Q.max()) if len(length_Q) else 1)
        length_L = torch.tensor(lengths, device=length_Q.device)
        group_Q = torch.searchsorted(length_L, length_Q)
        sequences_L = torch.bincount(group_Q, minlength=len(lengths))
        slots_L = sequences_L * length_L
        place_Q = _rank(group_Q, sequences_L) * length_L[group_Q]
        start_Q = (slots_L.cumsum(0) - slots_L)[group_Q] + place_Q
        q_R = torch.repeat_interleave(last_Q + 1 - first_Q)
        slot_R = start_Q[q_R] + self.steps - self.steps[first_Q][q_R]
        groups = [(n, length) for n, length in zip(sequences_L.tolist(), lengths, strict=True) if n]
        slots = Slots(groups=groups, of_rows=slot_R)
        if slots.total == len(slot_R) and len(groups) == 1:
            return Slots(groups=groups, of_rows=None)
        return slots


def plan_dispatch(chosen_TPE: Bool[Tensor, "T P E"]) -> DispatchPlan:
    """Sort the choices by expert, by token and by step.

    Args:
        chosen_TPE: whether token P (of all images) chooses expert E at step T; T below 256.
    """
    steps, tokens, experts = chosen_TPE.shape
    # A choice's place in (E, P, T) says all of it, and places come sorted.
    place_R = chosen_TPE.permute(2, 1, 0).flatten().nonzero().flatten()
    pair_R, step_R = place_R // steps, place_R % steps  # (expert, token), step
    expert_R, token_R = pair_R // tokens, pair_R % tokens
    begins_R = torch.ones_like(place_R, dtype=torch.bool)
    begins_R[1:] = pair_R[1:] != pair_R[:-1]
    start_Q = begins_R.nonzero().flatten()
    gap_R = torch.zeros_like(place_R)
    gap_R[1:] = step_R[1:] - step_R[:-1]
    device_2E = torch.stack(
        [torch.bincount(e, minlength=experts) for e in (expert_R, expert_R[start_Q])]
    )
    counts_2E = device_2E.tolist()
    rows_R = step_R * tokens + token_R
    return DispatchPlan(
        rows=rows_R,
        gates=rows_R * experts + expert_R,
        steps=step_R,
        starts=torch.cat([start_Q, start_Q.new_tensor([len(place_R)])]),
        gaps=gap_R.masked_fill(begins_R, 0).to(torch.uint8),
        first_sequence=torch.nn.functional.pad(device_2E[1].cumsum(0), (1, 0)),
        rows_per_expert=counts_2E[0],
        sequences_per_expert=counts_2E[1],
        window=steps,
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
