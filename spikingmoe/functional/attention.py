"""Attention without products of spike matrices."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from spikingmoe.shapes import Tokens


def qk_token_sum(query_TBND: Tokens, gain_H: Float[Tensor, " H"]) -> Float[Tensor, "T B N H"]:
    """Current of the token neurons: gain_h * (sum of the query spikes of head h), (T, B, N, H).

    After the token attention of QKFormer (Zhou 2024), with a trainable gain per head: without it
    the sum nearly always exceeds the threshold.
    """
    heads = gain_H.shape[0]
    return query_TBND.unflatten(-1, (heads, -1)).sum(-1) * gain_H


def per_head(token_TBNH: Float[Tensor, "T B N H"], channels: int) -> Tokens:
    """Repeat each head's value for its channels: (T, B, N, H) -> (T, B, N, D)."""
    return token_TBNH.repeat_interleave(channels // token_TBNH.shape[-1], dim=-1)
