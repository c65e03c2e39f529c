"""Random small models of every kind that lowers, and what to show them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from tiny_models import settled_model, tiny_config, tiny_images
from torch import Tensor

from spikingmoe.config import ModelConfig
from spikingmoe.model import SpikingTransformer

ROUTINGS = (
    *("top_k", "noisy_top_k", "threshold", "dynamic", "expert_choice", "hash", "hierarchical"),
    "dense",
)
ATTENTIONS = ("qk", "sdsa", "dwconv", "none")
MIXINGS = ("none", "dwconv", "conv")
EVENT_CHANNELS = 2


@dataclass(frozen=True)
class Example:
    """A configuration and a seed for its weights and images."""

    config: ModelConfig
    seed: int

    def model(self) -> SpikingTransformer:
        """Settled, in evaluation mode."""
        return settled_model(self.config, seed=self.seed)

    def images(self, samples: int) -> Tensor:
        """(S, C, H, W) normalised, or (S, T, 2, H, W) counts of events where there are polarities."""
        config = self.config
        if config.input_channels != EVENT_CHANNELS:
            return tiny_images(config, samples, seed=self.seed)
        generator = torch.Generator().manual_seed(self.seed)
        side = config.image_size
        rate = torch.rand(samples, config.time_steps, 2, side, side, generator=generator)
        return torch.poisson(1.5 * rate, generator=generator)


@st.composite
def examples_of_models(draw: st.DrawFn, *, routing: str | None = None) -> Example:
    """Any combination that the rules of `ModelConfig` and the lowering allow."""
    routing = routing or draw(st.sampled_from(ROUTINGS))
    steps = draw(st.integers(1, 6))
    early = draw(st.sampled_from([(), (), (1,)]))
    depth = draw(st.integers(1, 2))
    blocks = depth + sum(early)
    values: dict[str, object] = {
        "routing": routing,
        "time_steps": steps,
        "depth": depth,
        "early_depths": early,
        "num_classes": draw(st.sampled_from([10, 100])),
        "input_channels": draw(st.sampled_from([1, EVENT_CHANNELS, 3])),
        "image_size": 8,
        "stem_strides": draw(st.sampled_from([(1, 2), (2, 1)])),
        "num_heads": draw(st.sampled_from([1, 2, 4])),
        "attention": draw(st.sampled_from(ATTENTIONS)),
        "local_mixing": draw(st.sampled_from(MIXINGS)),
        "membrane_decay": draw(st.sampled_from([0.5, 0.0, 0.75, 3001 / 4096])),
        "relay_stride": draw(st.sampled_from([1, 2])),
    }
    if routing == "dense":
        values |= {"num_experts": 1, "prompt": "none", "mlp_width": draw(st.sampled_from([0, 10]))}
    else:
        values |= _mixture(draw, routing, steps, blocks)
    return Example(tiny_config(**values), draw(st.integers(0, 10_000)))


def _mixture(draw: st.DrawFn, routing: str, steps: int, blocks: int) -> dict[str, object]:
    grouped = routing == "hierarchical"
    groups, size = (draw(st.integers(2, 3)), draw(st.integers(2, 3))) if grouped else (1, 0)
    experts = groups * size if grouped else draw(st.integers(2, 5))
    by_image = routing != "expert_choice" and draw(st.integers(0, 3)) == 0
    prompt = "none" if routing == "hash" else draw(st.sampled_from(["learned", "random", "none"]))
    every = draw(st.sampled_from([1, 2])) if blocks > 1 else 1
    chain = draw(st.sampled_from([1, 1, 2]))
    by_prompt_alone = by_image and prompt != "none" and draw(st.booleans())
    return {
        "num_experts": experts,
        "num_groups": groups,
        "top_k": draw(st.integers(1, size if grouped else experts)),
        "route_by": "image" if by_image else "token",
        "router_input": "none" if by_prompt_alone else "spikes",
        "prompt": prompt,
        "hold": draw(st.sampled_from(["step", "window"])),
        "hold_step": draw(st.integers(0, steps - 1)),
        "chain": "depth" if chain > 1 else "none",
        "chain_length": chain,
        "shared_experts": draw(st.integers(0, 2)),
        "mixture_every": every,
        "mlp_width": draw(st.sampled_from([0, 10])) if every > 1 else 0,
        "cortical_feedback": blocks > 1 and prompt == "learned" and draw(st.booleans()),
    }
