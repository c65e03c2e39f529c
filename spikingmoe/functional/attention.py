"""The currents of attention: sums of spikes over channels or tokens, with a gain."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from spikingmoe.shapes import Tokens

PerHead = Float[Tensor, " H"]


def positive_gain(log_gain: Tensor, inputs: int = 1) -> Tensor:
    """exp(log_gain) / inputs, a number of float32 whatever the dtype of the model.

    In float64 sums of it are then exact in any order (24 bits of significand and at most 2^29
    terms), so that torch, which multiplies a count, and a chip, which adds up single spikes, agree
    on the threshold; and a model in float32 has the same gain as its copy in float64.
    """
    return (log_gain.float().exp() / inputs).to(log_gain.dtype)


def qk_token_sum(query_TBND: Tokens, gain_H: PerHead) -> Float[Tensor, "T B N H"]:
    """Current of the token neurons: gain_h * (sum of the query spikes of head h), (T, B, N, H).

    After the token attention of QKFormer (Zhou 2024), with a trainable gain per head: without it
    the sum nearly always exceeds the threshold.
    """
    return query_TBND @ _members(query_TBND, len(gain_H)) * gain_H


def per_head(token_TBNH: Float[Tensor, "T B N H"], channels: int) -> Tokens:
    """Repeat each head's value for its channels: (T, B, N, H) -> (T, B, N, D)."""
    return token_TBNH @ _members(token_TBNH, token_TBNH.shape[-1], channels).T


def _members(x: Tensor, heads: int, channels: int | None = None) -> Tensor:
    """(D, H) which channels belong to which head, 1 or 0, like x.

    As matrix products, sums over a head and copies to its channels (each the gradient of the other)
    take a fraction of the time; sums of spikes are as exact (in bfloat16 up to 256 of them).
    """
    channels = channels or x.shape[-1]
    identity = torch.eye(heads, dtype=x.dtype, device=x.device)
    return identity.repeat_interleave(channels // heads, dim=0)


def sdsa_channel_sum(key_value_TBND: Tokens, gain_D: Float[Tensor, " D"]) -> Float[Tensor, "T B D"]:
    """Current of the channel neurons: gain_d * (sum of the spikes of channel d over all tokens).

    After the spike-driven self-attention of Yao 2023, with a trainable gain per channel.
    """
    return key_value_TBND.sum(2, dtype=gain_D.dtype) * gain_D


def ssa_products(
    query_TBND: Tokens, key_TBND: Tokens, value_TBND: Tokens, heads: int
) -> Float[Tensor, "T B N H d"]:
    """Q K^T V of each head (Spikformer, Zhou 2023): (T, B, N, H, D / H).

    Without a softmax the product is associative: K^T V comes first, which is linear in N.
    """
    query, key, value = (
        x.unflatten(-1, (heads, -1)).transpose(2, 3) for x in (query_TBND, key_TBND, value_TBND)
    )
    return (query @ (key.mT @ value)).transpose(2, 3)
