"""The mixture layer: router and experts (or, dense, one expert) on the residual stream."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from spikingmoe.config import ModelConfig
from spikingmoe.functional.routing import orthogonality_loss
from spikingmoe.layers.expert import Experts, SpikingMLP
from spikingmoe.layers.neuron import make_neuron
from spikingmoe.layers.router import Router, RoutingInfo
from spikingmoe.shapes import Prompt, Tokens


class ExpertLink(nn.Module):
    """X = LIF(U), gates from the router, experts behind them.

    Shapes: the stream U (T, B, N, D), prompt (T, B, M) or None
    -> (X, current (T, B, N, D), RoutingInfo).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.neuron = make_neuron(config)
        self.router = Router(config)
        self.experts = Experts(config)

    def link(self, stream: Tokens, prompt: Prompt | None) -> tuple[Tokens, Tokens, RoutingInfo]:
        """One application of the experts."""
        x = self.neuron(stream)
        gates, info = self.router(x, stream, prompt)
        current, mean_outputs = self.experts(x, gates)
        losses = replace(info.losses, orthogonality=orthogonality_loss(mean_outputs))
        return x, current, replace(info, losses=losses)


class MixtureOfExperts(ExpertLink):
    """A mixture with its shared experts, applied once or as a chain.

    A chain in depth (after chain of experts, arXiv 2506.18945) applies the same experts again to the
    stream that they have changed, each link with its own neurons, router and batch norm. A chain in
    time adds the output of step t - 1 to the stream that step t reads.

    Shapes: the stream U (T, B, N, D), prompt (T, B, M) or None
    -> (X (T, B, N, D), current (T, B, N, D), one RoutingInfo per link).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        width = config.shared_experts * config.expert_width
        self.shared = SpikingMLP(config, width) if width else None
        self.links = nn.ModuleList(ExpertLink(config) for _ in range(config.chain_length - 1))
        for link in self.links:
            assert isinstance(link, ExpertLink)
            link.experts.weight1 = self.experts.weight1
            link.experts.weight2 = self.experts.weight2
        self.over_time = config.chain == "time"

    def forward(
        self, stream: Tokens, prompt: Prompt | None
    ) -> tuple[Tokens, Tokens, tuple[RoutingInfo, ...]]:
        if self.over_time:
            return self._forward_over_time(stream, prompt)
        x, current, info = self.link(stream, prompt)
        if self.shared is not None:
            current = current + self.shared(x)
        infos = [info]
        for link in self.links:
            assert isinstance(link, ExpertLink)
            _, more, info = link.link(stream + current, prompt)
            current = current + more
            infos.append(info)
        return x, current, tuple(infos)

    def _forward_over_time(
        self, stream: Tensor, prompt: Tensor | None
    ) -> tuple[Tensor, Tensor, tuple[RoutingInfo, ...]]:
        """Each step runs the window so far again, since neurons keep no state between calls.

        While training, batch statistics of step t are those of the steps up to t.
        """
        outputs: list[Tensor] = []
        for t in range(1, len(stream) + 1):
            before = torch.stack([torch.zeros_like(stream[0]), *outputs])
            seen = stream[:t] + before
            x, current, info = self.link(seen, None if prompt is None else prompt[:t])
            if self.shared is not None:
                current = current + self.shared(x)
            outputs.append(current[-1])
        return x, torch.stack(outputs), (info,)


class DenseMLP(nn.Module):
    """X = LIF(U) and one expert that is always on: (T, B, N, D) -> (X, a current of that shape)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.neuron = make_neuron(config)
        self.mlp = SpikingMLP(config, config.dense_width)

    def forward(self, stream: Tokens) -> tuple[Tokens, Tokens]:
        x = self.neuron(stream)
        return x, self.mlp(x)
