"""The router: binary gates from the prompt and the token's own spikes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from spikingmoe.config import ModelConfig
from spikingmoe.functional.routing import (
    add_noise,
    balance_loss,
    budget_loss,
    entropy_loss,
    expert_load,
    hold_window,
    importance_loss,
    pass_gradient,
    variance_loss,
)
from spikingmoe.layers.gates import make_gate, open_rate
from spikingmoe.shapes import Gates, Prompt, Tokens


@dataclass(frozen=True)
class RoutingLosses:
    """Scalars with gradients; see `spikingmoe.functional.routing.balance`."""

    balance: Tensor
    importance: Tensor
    z: Tensor
    entropy: Tensor
    variance: Tensor
    budget: Tensor
    orthogonality: Tensor


@dataclass(frozen=True)
class RoutingInfo:
    """What one router decided.

    Attributes:
        gates: (T, B, N, E), 1 where the expert works.
        scores: (T, B, N or 1, scores), without the homeostatic bias.
        load: (E,) share of the choices per expert.
        open_rate: (E,) share of decisions in which the gate opened.
    """

    gates: Tensor
    scores: Tensor
    load: Tensor
    open_rate: Tensor
    losses: RoutingLosses


class WindowHold(nn.Module):
    """Keeps the gates of one step for the rest of the window."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step

    def forward(self, gates: Tensor) -> Tensor:
        return hold_window(gates, self.step)

    def extra_repr(self) -> str:
        return f"step={self.step}"


class Router(nn.Module):
    """Scores C[t,n,e] = W_P P[t] + W_X X[t,n] + h_e, from which the gate chooses.

    h is the homeostatic bias: moved against the load error by `adapt`, never by the gradient.
    Image-wise, X is the mean over the tokens and one gate serves them all. For "dynamic" a learned
    threshold is subtracted; for "noisy_top_k" noise is added while training. With
    router_input="membrane" the real-valued stream takes the place of X: not spike-driven.

    Shapes: x and stream (T, B, N, D), prompt (T, B, M) or None -> gates (T, B, N, E).
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.choose = make_gate(config)
        channels = self.choose.score_channels
        self.by_image = config.route_by == "image"
        self.input = config.router_input
        self.budget = float(config.top_k)
        self.from_prompt = (
            nn.Linear(config.prompt_width, channels, bias=False) if config.has_prompt else None
        )
        self.from_token = (
            nn.Linear(config.embed_dim, channels, bias=config.router_input == "membrane")
            if config.router_input != "none"
            else None
        )
        if config.routing == "hash":
            assert self.from_token is not None
            with torch.no_grad():  # rows without a mean: else the score counts spikes above all
                rows = torch.randn_like(self.from_token.weight)
                self.from_token.weight.copy_(rows - rows.mean(dim=1, keepdim=True))
            self.from_token.requires_grad_(False)
        noisy = config.routing == "noisy_top_k"
        self.noise_scale = nn.Linear(config.embed_dim, channels) if noisy else None
        if self.noise_scale is not None:
            nn.init.zeros_(self.noise_scale.weight)
            nn.init.zeros_(self.noise_scale.bias)
        dynamic = config.routing == "dynamic"
        self.learned_threshold = nn.Parameter(torch.zeros(channels)) if dynamic else None
        self.homeostatic_bias: Tensor
        self.register_buffer("homeostatic_bias", torch.zeros(channels))
        self.hold = WindowHold(config.hold_step) if config.hold == "window" else None

    def forward(
        self, x: Tokens, stream: Tokens, prompt: Prompt | None
    ) -> tuple[Gates, RoutingInfo]:
        plain = self._scores(x, stream, prompt)
        scores = plain + self.homeostatic_bias
        if self.noise_scale is not None and self.training:
            scores = add_noise(scores, self.noise_scale(self._seen(x)))
        decided = self.choose(scores)
        gates = decided if self.hold is None else self.hold(decided)
        decisions = decided if self.hold is None else decided[self.hold.step]
        gates = gates.expand(-1, -1, x.shape[2], -1)
        load = expert_load(gates)
        info = RoutingInfo(
            gates=gates.detach(),
            scores=plain.detach(),
            load=load,
            open_rate=open_rate(decisions),
            losses=self._losses(plain, scores, decided.detach(), load),
        )
        return gates, info

    def _seen(self, tokens: Tensor) -> Tensor:
        return tokens.mean(dim=2, keepdim=True) if self.by_image else tokens

    def _scores(self, x: Tensor, stream: Tensor, prompt: Tensor | None) -> Tensor:
        """(T, B, N or 1, channels), without the homeostatic bias."""
        scores = x.new_zeros(())
        if self.from_prompt is not None:
            assert prompt is not None
            scores = self.from_prompt(prompt)[:, :, None]
        if self.from_token is not None:
            source = stream if self.input == "membrane" else x
            if not self.from_token.weight.requires_grad:
                source = source.detach()  # a hash: nothing learns through it
            scores = scores + self.from_token(self._seen(source))
        return scores if self.learned_threshold is None else scores - self.learned_threshold

    def _losses(self, plain: Tensor, scores: Tensor, mask: Tensor, load: Tensor) -> RoutingLosses:
        probability, zero = self.choose.probability(plain), plain.new_zeros(())
        budget = zero
        if not self.choose.competitive:
            # Counted are the gates that open: of scores about 0, sigmoids add up to E / 2 even where
            # every score is below 0 and no gate opens.
            counted = pass_gradient(mask, self.choose.probability(scores), "full")
            budget = budget_loss(counted, self.budget)
        return RoutingLosses(
            balance=balance_loss(probability, load),
            importance=importance_loss(probability),
            z=self.choose.z_loss(plain),
            entropy=entropy_loss(probability, competitive=self.choose.competitive),
            variance=variance_loss(probability),
            budget=budget,
            orthogonality=zero,
        )

    @torch.no_grad()
    def adapt(self, info: RoutingInfo, rate: float) -> None:
        """One homeostatic step: busy experts become less, idle ones more attractive."""
        self.homeostatic_bias.copy_(
            self.choose.homeostasis(self.homeostatic_bias, info.load, info.open_rate, rate)
        )

    def extra_repr(self) -> str:
        return f"by_image={self.by_image}, input={self.input!r}"
