"""One small mixture for each kind of routing that can be lowered."""

import pytest
from tiny_models import settled_model, tiny_config

FAMILY = {
    "top_2": {"top_k": 2, "num_experts": 4},
    "all": {"top_k": 3},
    "noisy": {"routing": "noisy_top_k"},
    "threshold": {"routing": "threshold"},
    "dynamic": {"routing": "dynamic"},
    "expert_choice": {"routing": "expert_choice"},
    "hash": {"routing": "hash", "prompt": "none"},
    "hierarchical": {"routing": "hierarchical", "num_experts": 6, "num_groups": 2, "top_k": 2},
    "image": {"route_by": "image", "num_experts": 4},
    "image_threshold": {"route_by": "image", "routing": "threshold"},
    "image_hierarchical": {
        "route_by": "image",
        "routing": "hierarchical",
        "num_experts": 4,
        "num_groups": 2,
    },
    "held_image": {"route_by": "image", "hold": "window"},
    "held_threshold": {"routing": "threshold", "hold": "window"},
    "held_expert_choice": {"routing": "expert_choice", "hold": "window"},
    "chain": {"chain": "depth", "chain_length": 2, "shared_experts": 1},
    "feedback": {"depth": 2, "mixture_every": 2, "cortical_feedback": True, "mlp_width": 5},
}
each_of_the_family = pytest.mark.parametrize("name", FAMILY)


def of_family(name, seed=0):
    """(configuration, settled model)."""
    config = tiny_config(**FAMILY[name])
    return config, settled_model(config, seed)
