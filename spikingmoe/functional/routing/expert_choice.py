"""Expert choice: each expert takes its best tokens of an image (Zhou 2022, arXiv 2202.09368).

Every expert is equally busy by construction; a token may get several experts or none. Tokens
compete within one image and step, so that no sample sees another.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from spikingmoe.functional.routing.top_k import top_k_margin, top_k_mask

TokenScores = Float[Tensor, "*rows N E"]


def expert_choice_mask(scores: TokenScores, capacity: int) -> TokenScores:
    """1 where fewer than `capacity` tokens score higher for that expert (ties: the first token wins).

    Args:
        scores: (..., N, E); the N tokens of one image compete.
    """
    return top_k_mask(scores.mT, capacity).mT


def expert_choice_margin(scores: TokenScores, mask: TokenScores) -> TokenScores:
    """How far each token's score lies above the best token that the expert left, (..., N, E)."""
    return top_k_margin(scores.mT, mask.mT).mT
