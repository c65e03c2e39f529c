"""Choosing experts from scores: one rule per file; gradients, balance and hold beside them."""

from spikingmoe.functional.routing.balance import (
    balance_loss,
    budget_loss,
    entropy_loss,
    expert_load,
    importance_loss,
    orthogonality_loss,
    variance_loss,
    z_loss,
)
from spikingmoe.functional.routing.expert_choice import expert_choice_margin, expert_choice_mask
from spikingmoe.functional.routing.gradient import pass_gradient
from spikingmoe.functional.routing.hierarchical import (
    hierarchical_margin,
    hierarchical_mask,
    hierarchical_probability,
    split_scores,
)
from spikingmoe.functional.routing.hold import hold_window
from spikingmoe.functional.routing.homeostasis import (
    group_homeostatic_step,
    homeostatic_step,
    threshold_homeostatic_step,
)
from spikingmoe.functional.routing.noise import add_noise
from spikingmoe.functional.routing.threshold import threshold_mask
from spikingmoe.functional.routing.top_k import top_k_margin, top_k_mask

__all__ = [
    "add_noise",
    "balance_loss",
    "budget_loss",
    "entropy_loss",
    "expert_choice_margin",
    "expert_choice_mask",
    "expert_load",
    "group_homeostatic_step",
    "hierarchical_margin",
    "hierarchical_mask",
    "hierarchical_probability",
    "hold_window",
    "homeostatic_step",
    "importance_loss",
    "orthogonality_loss",
    "pass_gradient",
    "split_scores",
    "threshold_homeostatic_step",
    "threshold_mask",
    "top_k_margin",
    "top_k_mask",
    "variance_loss",
    "z_loss",
]
