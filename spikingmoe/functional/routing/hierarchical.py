"""Two-level gates: first a group of experts, then experts within it.

After the hierarchical mixture of Jordan and Jacobs 1994 and Shazeer 2017, appendix B: an expert is
used where its group's gate and its own are open. Binary here: one group, its `k` best experts. It
needs far fewer comparisons than one contest of all experts.

Scores are (..., G + E): those of the groups, then those of the experts, group by group.
"""

from __future__ import annotations

from torch import Tensor

from spikingmoe.functional.routing.top_k import top_k_margin, top_k_mask
from spikingmoe.shapes import Scores, ScoresOfGroups


def split_scores(scores: ScoresOfGroups, groups: int) -> tuple[Tensor, Tensor]:
    """(..., G + E) -> group scores (..., G) and expert scores (..., G, E / G)."""
    return scores[..., :groups], scores[..., groups:].unflatten(-1, (groups, -1))


def hierarchical_mask(scores: ScoresOfGroups, groups: int, k: int) -> Scores:
    """1 for the `k` best experts of the best group. (..., G + E) -> (..., E)."""
    group, expert = split_scores(scores, groups)
    return (top_k_mask(group, 1)[..., None] * top_k_mask(expert, k)).flatten(-2)


def hierarchical_probability(scores: ScoresOfGroups, groups: int) -> Scores:
    """softmax over groups times softmax within the group; sums to 1. (..., G + E) -> (..., E)."""
    group, expert = split_scores(scores, groups)
    return (group.softmax(-1)[..., None] * expert.softmax(-1)).flatten(-2)


def hierarchical_margin(scores: ScoresOfGroups, groups: int, k: int) -> tuple[Tensor, Tensor]:
    """Margins of the groups and of the experts within theirs, both as (..., E)."""
    group, expert = split_scores(scores, groups)
    of_group = top_k_margin(group, top_k_mask(group.detach(), 1))[..., None].expand_as(expert)
    within = top_k_margin(expert, top_k_mask(expert.detach(), k))
    return of_group.flatten(-2), within.flatten(-2)
