"""The router: binary gates from the prompt and the token's own spikes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spikingmoe.config import ModelConfig
from spikingmoe.functional.routing import (
    entropy_loss,
    expert_load,
    hold_window,
    homeostatic_step,
    load_balance_loss,
    top_k_gate,
)
from spikingmoe.shapes import Gates, Prompt, Scores, Tokens


@dataclass(frozen=True)
class RoutingInfo:
    """What one router decided.

    Attributes:
        gates: (T, B, N, E), 1 where the expert works.
        load: (E,) share of the choices per expert.
        balance_loss, entropy_loss: scalars with gradients.
    """

    gates: Tensor
    load: Tensor
    balance_loss: Tensor
    entropy_loss: Tensor


class TopKGate(nn.Module):
    """Scores (..., E) -> gates: the k highest, the lower index at a tie, straight-through gradient."""

    def __init__(self, k: int) -> None:
        super().__init__()
        self.k = k

    def forward(self, scores: Scores) -> Scores:
        return top_k_gate(scores, self.k)


class WindowHold(nn.Module):
    """Keeps the gates of one step for the rest of the window."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def forward(self, gates: Gates) -> Gates:
        return hold_window(gates, self.step)


class Router(nn.Module):
    """Scores C[t,n,e] = W_P P[t] + W_X X[t,n] + h_e; the K highest open their gates.

    h is the homeostatic bias: moved against the load error by `adapt`, never by the gradient.
    Shapes: x (T, B, N, D), prompt (T, B, M) -> gates (T, B, N, E).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        experts = config.num_experts
        self.from_prompt = nn.Linear(config.prompt_width, experts, bias=False)
        self.from_token = nn.Linear(config.embed_dim, experts, bias=False)
        self.homeostatic_bias: Tensor
        self.register_buffer("homeostatic_bias", torch.zeros(experts))
        self.choose = TopKGate(config.top_k)
        self.hold = WindowHold(config.hold_step) if config.hold == "window" else None

    def forward(self, x: Tokens, prompt: Prompt) -> tuple[Gates, RoutingInfo]:
        plain = self.from_prompt(prompt)[:, :, None] + self.from_token(x)
        scores = plain + self.homeostatic_bias
        gates = self.choose(scores)
        if self.hold is not None:
            gates = self.hold(gates)
        info = RoutingInfo(
            gates=gates.detach(),
            load=expert_load(gates),
            balance_loss=load_balance_loss(plain, gates),
            entropy_loss=entropy_loss(plain),
        )
        return gates, info

    @torch.no_grad()
    def adapt(self, load: Tensor, rate: float) -> None:
        """One homeostatic step: busy experts become less, idle ones more attractive."""
        self.homeostatic_bias.copy_(homeostatic_step(self.homeostatic_bias, load, rate))
