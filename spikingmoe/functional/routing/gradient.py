"""How a binary gate passes gradients to the scores.

Forward is always the mask, exactly. Backward, with p the soft form of the gate (softmax or sigmoid):

    full     d gate_e = d p_e                 for all experts, the unchosen ones included
    chosen   d gate_e = g_e d p_e             only where the gate opened
    margin   d gate_e = g_e d sigmoid(margin_e / temperature)    likewise, by the winner's lead
    none     0

"full" is the straight-through estimate (Bengio 2013); it needs what unchosen experts would have
answered. The others do not, so unchosen experts need not be computed.
"""

from __future__ import annotations

from spikingmoe.config.model import GateGradient
from spikingmoe.shapes import Scores


def pass_gradient(mask: Scores, soft: Scores, gradient: GateGradient) -> Scores:
    """`mask` forward; backward as said above, `soft` being p or the sigmoid of the margin."""
    if gradient == "none" or not soft.requires_grad:
        return mask
    if gradient == "full":
        return mask + (soft - soft.detach())
    return mask * (1 + (soft - soft.detach()))
