"""Gates: scores (T, B, N, E) in, binary gates (T, B, N, E) out; N is 1 for image-wise gates.

Each class is one rule of `spikingmoe.functional.routing` with the gradient that the configuration
asks for, the probabilities that the routing losses see, and its homeostasis.
"""

from __future__ import annotations

import math
from abc import abstractmethod

from torch import Tensor, nn

from spikingmoe.config import ModelConfig
from spikingmoe.config.model import GateGradient
from spikingmoe.functional.routing import (
    expert_choice_margin,
    expert_choice_mask,
    group_homeostatic_step,
    hierarchical_margin,
    hierarchical_mask,
    hierarchical_probability,
    homeostatic_step,
    pass_gradient,
    split_scores,
    threshold_homeostatic_step,
    threshold_mask,
    top_k_margin,
    top_k_mask,
    z_loss,
)
from spikingmoe.shapes import Channels, Load, Scores


class Gate(nn.Module):
    """What all rules share.

    Attributes:
        score_channels: how many scores the router must supply.
        max_open: how many gates of one token can be open at once.
        competitive: whether probabilities of a row sum to 1.
        temperature: of the soft form; changes gradients and losses, never the choice.
    """

    competitive = True

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.experts, self.k = config.num_experts, config.top_k
        self.gradient: GateGradient = config.gate_gradient
        self.temperature = 1.0
        self.score_channels = config.num_experts
        self.max_open = config.top_k

    @abstractmethod
    def mask(self, scores: Tensor) -> Tensor:
        """The choice, 0 and 1."""

    @abstractmethod
    def margin(self, scores: Tensor, mask: Tensor) -> Tensor:
        """sigmoid of what each winner leads by, over the temperature."""

    def probability(self, scores: Tensor) -> Tensor:
        """The soft form of the gates."""
        return (scores / self.temperature).softmax(-1)

    def z_loss(self, scores: Tensor) -> Tensor:
        """z-loss of the contest, or of the contests, that the scores enter."""
        return z_loss(scores)

    def homeostasis(self, bias: Channels, load: Load, open_rate: Load, rate: float) -> Channels:
        """The homeostatic bias after a batch.

        Args:
            load: share of all choices. open_rate: share of decisions in which the gate opened.
        """
        return homeostatic_step(bias, load, rate)

    def forward(self, scores: Tensor) -> Tensor:
        mask = self.mask(scores.detach())
        if not scores.requires_grad or self.gradient == "none":
            return mask
        by_margin = self.gradient == "margin"
        soft = self.margin(scores, mask) if by_margin else self.probability(scores)
        return pass_gradient(mask, soft, self.gradient)

    def extra_repr(self) -> str:
        return f"experts={self.experts}, k={self.k}, gradient={self.gradient!r}"


class TopKGate(Gate):
    """The k highest scores, the lower index at a tie."""

    def mask(self, scores: Tensor) -> Tensor:
        return top_k_mask(scores, self.k)

    def margin(self, scores: Tensor, mask: Tensor) -> Tensor:
        return (top_k_margin(scores, mask) / self.temperature).sigmoid()


class HashGate(TopKGate):
    """Top-k of frozen random projections: the choice is a fixed hash of the token's spikes.

    Hash layers (Roller 2021, arXiv 2106.04426) hash word numbers; a token here is a vector, so its
    hash is locality-sensitive (cross-polytope, Andoni 2015). Nothing is learned or balanced,
    and no gradient passes.
    """

    def homeostasis(self, bias: Channels, load: Load, open_rate: Load, rate: float) -> Channels:
        return bias


class ThresholdGate(Gate):
    """Every expert with a positive score; homeostasis aims at k open gates per token in the mean."""

    competitive = False

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.max_open = config.num_experts

    def mask(self, scores: Tensor) -> Tensor:
        return threshold_mask(scores)

    def probability(self, scores: Tensor) -> Tensor:
        return (scores / self.temperature).sigmoid()

    def margin(self, scores: Tensor, mask: Tensor) -> Tensor:
        return self.probability(scores)

    def homeostasis(self, bias: Channels, load: Load, open_rate: Load, rate: float) -> Channels:
        return threshold_homeostatic_step(bias, open_rate, self.k / self.experts, rate)


class DynamicGate(ThresholdGate):
    """The same with thresholds that the gradient learns (in the router), hence no homeostasis."""

    def homeostasis(self, bias: Channels, load: Load, open_rate: Load, rate: float) -> Channels:
        return bias


class ExpertChoiceGate(Gate):
    """Each expert takes its ceil(N k / E) best tokens of the image: balanced by construction."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.max_open = config.num_experts

    def capacity(self, tokens: int) -> int:
        """Tokens per expert, image and step."""
        return math.ceil(tokens * self.k / self.experts)

    def mask(self, scores: Tensor) -> Tensor:
        return expert_choice_mask(scores, self.capacity(scores.shape[-2]))

    def margin(self, scores: Tensor, mask: Tensor) -> Tensor:
        return (expert_choice_margin(scores, mask) / self.temperature).sigmoid()

    def homeostasis(self, bias: Channels, load: Load, open_rate: Load, rate: float) -> Channels:
        return bias


class HierarchicalGate(Gate):
    """The best group of experts, and the k best experts within it."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self.groups = config.num_groups
        self.score_channels = config.num_groups + config.num_experts

    def mask(self, scores: Tensor) -> Tensor:
        return hierarchical_mask(scores, self.groups, self.k)

    def probability(self, scores: Tensor) -> Tensor:
        return hierarchical_probability(scores / self.temperature, self.groups)

    def margin(self, scores: Tensor, mask: Tensor) -> Tensor:
        group, within = hierarchical_margin(scores, self.groups, self.k)
        return (group / self.temperature).sigmoid() * (within / self.temperature).sigmoid()

    def z_loss(self, scores: Tensor) -> Tensor:
        group, expert = split_scores(scores, self.groups)
        return z_loss(group) + z_loss(expert)

    def homeostasis(self, bias: Channels, load: Load, open_rate: Load, rate: float) -> Channels:
        return group_homeostatic_step(bias, load, rate, self.groups)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, groups={self.groups}"


GATES: dict[str, type[Gate]] = {
    "top_k": TopKGate,
    "noisy_top_k": TopKGate,
    "threshold": ThresholdGate,
    "dynamic": DynamicGate,
    "expert_choice": ExpertChoiceGate,
    "hash": HashGate,
    "hierarchical": HierarchicalGate,
}


def make_gate(config: ModelConfig) -> Gate:
    """The gate of `config.routing`."""
    return GATES[config.routing](config)


def open_rate(gates: Scores) -> Load:
    """Share of decisions (*rows, E) in which each gate opened, (E,)."""
    return gates.detach().flatten(0, -2).mean(0)


__all__ = [
    "GATES",
    "DynamicGate",
    "ExpertChoiceGate",
    "Gate",
    "HashGate",
    "HierarchicalGate",
    "ThresholdGate",
    "TopKGate",
    "make_gate",
    "open_rate",
]
