"""Top-k: the k highest scores win (Shazeer 2017, arXiv 1701.06538, without its softmax weights)."""

from __future__ import annotations

import torch

from spikingmoe.shapes import Scores


def top_k_mask(scores: Scores, k: int) -> Scores:
    """1 where fewer than `k` experts score higher (ties: the lower index wins), else 0.

    Args:
        scores: (..., E).
    """
    order = scores.sort(dim=-1, descending=True, stable=True).indices[..., :k]
    return torch.zeros_like(scores).scatter_(-1, order, 1.0)


def top_k_margin(scores: Scores, mask: Scores) -> Scores:
    """How far each score lies above the best one that lost, (..., E); infinite if none lost.

    For a chosen expert this is the distance that its score may fall before the choice changes.
    """
    lost = scores.masked_fill(mask.bool(), float("-inf")).amax(dim=-1, keepdim=True)
    return torch.where(lost.isinf(), torch.full_like(scores, float("inf")), scores - lost)
