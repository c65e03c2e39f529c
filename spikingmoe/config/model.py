"""What a model is made of: one frozen dataclass, every combination checked when it is built."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Literal

from spikingmoe.config.fields import check_types, from_dict
from spikingmoe.config.rules import check_model

Routing = Literal[
    "top_k",
    "noisy_top_k",
    "threshold",
    "dynamic",
    "expert_choice",
    "hash",
    "hierarchical",
    "dense",
]
RouteBy = Literal["token", "image"]
RouterInput = Literal["spikes", "membrane", "none"]
GateGradient = Literal["full", "chosen", "margin", "none"]
Dispatch = Literal["auto", "masked", "grouped"]
Hold = Literal["step", "window"]
Chain = Literal["none", "depth", "time"]
PromptKind = Literal["learned", "random", "noise", "none"]
Attention = Literal["qk", "sdsa", "dwconv", "ssa", "none"]
LocalMixing = Literal["none", "dwconv", "conv"]
Neuron = Literal["lif", "norse", "relu", "quantised_relu"]
Surrogate = Literal["atan", "fast_sigmoid", "sigmoid"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """A spiking mixture-of-experts transformer (axes as in `spikingmoe.shapes`).

    Attributes:
        input_channels, image_size: images are (B, input_channels, image_size, image_size).
        stem_channels: channels of the stem's convolutions before the last.
        stem_strides: one stride per convolution, the last included.
        embed_dim, num_heads, expert_width, depth: of the last stage.
        early_depths: blocks of the stages before it; a stage has half the channels, heads and
            expert width of the next, and a map of twice its side.
        local_mixing: how a token sees its neighbours before attention: "conv" (a residual 3x3
            convolution), "dwconv" (depthwise 3x3, then token-wise) or "none".
        attention: "qk", "sdsa", "dwconv" or "none"; "ssa" is for comparison and cannot be lowered.
        routing: how experts are chosen: "top_k", "noisy_top_k" (noise while training), "threshold"
            (every expert with a positive score), "dynamic" (learned thresholds), "expert_choice"
            (experts choose tokens), "hash" (frozen hash of the token), "hierarchical" (a group,
            then experts in it), or "dense" (one expert, always on).
        top_k: experts per token; the number aimed at for "threshold" and "dynamic", the mean of
            "expert_choice".
        num_groups: groups of experts, for "hierarchical".
        route_by: one gate per token, or one per image for all its tokens.
        hold: "step" decides anew at each step; "window" keeps the decision of step `hold_step`
            (and no expert works before it).
        router_input: what the router reads beside the prompt: the token's "spikes", its "membrane"
            (real-valued, unconstrained: cannot be lowered) or "none".
        gate_gradient: "full" (straight through softmax or sigmoid, unchosen experts included),
            "chosen" (only through gates that opened), "margin" (through gates that opened, by the
            lead over the best score that lost; for "threshold" and "dynamic" that is the score
            itself, as for "chosen") or "none".
        dispatch: "masked" computes all experts, "grouped" only the chosen ones; "auto" takes the
            faster one (masked where the gate gradient is "full", which needs all experts).
        shared_experts: experts that are always on, beside the chosen ones.
        mixture_every: every n-th block holds a mixture, the others a dense MLP.
        mlp_width: hidden neurons of dense MLPs; 0 is `expert_width`.
        chain: "depth" applies the experts `chain_length` times in a row, each with its own router;
            "time" feeds the output of one time step into the next (a cycle: cannot be lowered).
        prompt: the SDprompt: "learned", "random" (frozen random projection), "noise" (bits that do
            not depend on the image: cannot be lowered) or "none".
        relay_kernel, relay_stride: side of the relay cells' receptive fields; the cells stand at
            every `relay_stride`-th pixel in both directions.
        prompt_grid: the prompt pools relay cells onto a grid of this size.
        cortical_feedback: one prompt per block, which also sees the spikes of the block before.
        neuron: "lif", the same neuron by "norse", or, for the non-spiking twins, "relu" or
            "quantised_relu" (`time_steps` is 1 then).
        activation_bits: of "quantised_relu", which has 2**activation_bits levels; 0 for all others.
    """

    preset: str = "custom"
    num_classes: int = 10
    input_channels: int = 1
    image_size: int = 8
    time_steps: int = 4
    stem_channels: tuple[int, ...] = (16, 32)
    stem_strides: tuple[int, ...] = (1, 2, 1)
    embed_dim: int = 32
    depth: int = 2
    early_depths: tuple[int, ...] = ()
    num_heads: int = 4
    local_mixing: LocalMixing = "none"
    attention: Attention = "qk"
    expert_width: int = 64
    num_experts: int = 4
    top_k: int = 1
    num_groups: int = 1
    routing: Routing = "top_k"
    route_by: RouteBy = "token"
    hold: Hold = "step"
    hold_step: int = 1
    router_input: RouterInput = "spikes"
    gate_gradient: GateGradient = "margin"
    dispatch: Dispatch = "auto"
    shared_experts: int = 0
    mixture_every: int = 1
    mlp_width: int = 0
    chain: Chain = "none"
    chain_length: int = 1
    prompt: PromptKind = "learned"
    prompt_width: int = 16
    prompt_grid: int = 2
    relay_kernel: int = 5
    relay_stride: int = 1
    cortical_feedback: bool = False
    neuron: Neuron = "lif"
    activation_bits: int = 0
    membrane_decay: float = 0.5
    threshold: float = 1.0
    surrogate: Surrogate = "atan"
    detach_reset: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        check_model(self)

    @property
    def is_spiking(self) -> bool:
        """Whether its neurons spike, whichever library computes them."""
        return self.neuron not in ("relu", "quantised_relu")

    @property
    def is_mixture(self) -> bool:
        """Whether any block holds a mixture."""
        return self.routing != "dense"

    @property
    def has_prompt(self) -> bool:
        """Whether an SDprompt helps to choose the experts."""
        return self.is_mixture and self.prompt != "none"

    @property
    def stage_depths(self) -> tuple[int, ...]:
        """Blocks per stage."""
        return (*self.early_depths, self.depth)

    @property
    def relay_side(self) -> int:
        """Height (and width) of the map of relay cells."""
        return self.image_size // self.relay_stride

    @property
    def total_depth(self) -> int:
        """Blocks of all stages."""
        return sum(self.stage_depths)

    def has_mixture(self, block: int) -> bool:
        """Whether block number `block` (over all stages) holds a mixture."""
        return self.is_mixture and (block + 1) % self.mixture_every == 0

    def stage(self, index: int) -> ModelConfig:
        """The configuration that the layers of stage `index` are built from.

        It has all blocks, as if those from this stage on were alike: numbers of blocks stay valid.
        """
        halvings = len(self.early_depths) - index
        return replace(
            self,
            embed_dim=self.embed_dim >> halvings,
            num_heads=max(1, self.num_heads >> halvings),
            expert_width=self.expert_width >> halvings,
            mlp_width=self.mlp_width >> halvings,
            depth=self.total_depth - sum(self.early_depths[:index]),
            early_depths=self.early_depths[:index],
        )

    @property
    def dense_width(self) -> int:
        """Hidden neurons of a dense MLP."""
        return self.mlp_width or self.expert_width

    @property
    def stem_side(self) -> int:
        """Height (and width) of the map after the stem."""
        side = self.image_size
        for stride in self.stem_strides:
            side = (side - 1) // stride + 1
        return side

    @property
    def tokens_per_side(self) -> int:
        """Height (and width) of the token grid of the last stage."""
        side = self.stem_side
        for _ in self.early_depths:
            side = (side - 1) // 2 + 1
        return side

    def as_dict(self) -> dict[str, object]:
        """JSON values; `model_config` reads them back."""
        return asdict(self)


def model_config(values: dict[str, object]) -> ModelConfig:
    """A ModelConfig from JSON values; ValueError for unknown or missing fields."""
    return from_dict(ModelConfig, values)
