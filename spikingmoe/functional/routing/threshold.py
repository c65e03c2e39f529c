"""Threshold: every expert whose score is positive, so that the number of experts is dynamic.

DynMoE (Guo 2024, arXiv 2405.14297) opens expert i where sigmoid(cos(x, w_i)) > sigmoid(G_i) with a
learned G_i. We compare the plain product w_i x with the learned threshold: the cosine divides by
the length of x, which no static synapse can.
"""

from __future__ import annotations

from spikingmoe.shapes import Scores


def threshold_mask(scores: Scores) -> Scores:
    """1 where the score is positive (strictly), else 0. (..., E) -> (..., E)."""
    return (scores > 0).to(scores.dtype)
