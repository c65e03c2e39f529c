"""Which combinations of model options are allowed: one small rule per concern."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spikingmoe.config.model import ModelConfig

MAX_EXPERTS = 64
MAX_TIME_STEPS = 64
MAX_ACTIVATION_BITS = 8
AT_LEAST_ONE = (
    "num_classes",
    "input_channels",
    "image_size",
    "time_steps",
    "embed_dim",
    "depth",
    "num_heads",
    "expert_width",
    "num_experts",
    "top_k",
    "num_groups",
    "mixture_every",
    "chain_length",
    "prompt_width",
    "prompt_grid",
    "relay_stride",
)


def check_model(config: ModelConfig) -> None:
    """ValueError for the first rule that the configuration breaks: what was got, what is allowed."""
    for name in AT_LEAST_ONE:
        if getattr(config, name) < 1:
            _refuse(config, f"{name}={getattr(config, name)} must be at least 1")
    for name in ("shared_experts", "mlp_width", "hold_step"):
        if getattr(config, name) < 0:
            _refuse(config, f"{name}={getattr(config, name)} must not be negative")
    for rule in (
        _check_sizes,
        _check_stages,
        _check_neuron,
        _check_dense,
        _check_experts,
        _check_router,
        _check_prompt,
        _check_chain,
    ):
        rule(config)


def _refuse(config: ModelConfig, message: str) -> None:
    raise ValueError(f"model '{config.preset}': {message}")


def _check_sizes(c: ModelConfig) -> None:
    if c.num_classes < 2:
        _refuse(c, f"num_classes={c.num_classes} must be at least 2")
    if c.time_steps > MAX_TIME_STEPS:
        _refuse(c, f"time_steps={c.time_steps} exceeds {MAX_TIME_STEPS}; use 1 to {MAX_TIME_STEPS}")
    if len(c.stem_strides) != len(c.stem_channels) + 1:
        _refuse(c, f"stem_strides={c.stem_strides} needs {len(c.stem_channels) + 1} entries")
    if min(c.stem_channels + c.stem_strides, default=1) < 1:
        _refuse(c, "stem_channels and stem_strides must be at least 1")


def _check_stages(c: ModelConfig) -> None:
    if min(c.early_depths, default=1) < 1:
        _refuse(c, f"early_depths={c.early_depths} must be at least 1 each")
    halvings = len(c.early_depths)
    for name in ("embed_dim", "expert_width", "mlp_width"):
        if getattr(c, name) % 2**halvings:
            _refuse(
                c,
                f"{name}={getattr(c, name)} is halved for each of {halvings} early stages; "
                f"use a multiple of {2**halvings}",
            )
    for halving in range(halvings + 1):
        dim, heads = c.embed_dim >> halving, max(1, c.num_heads >> halving)
        if dim % heads:
            _refuse(c, f"num_heads={heads} does not divide embed_dim={dim}")


def _check_neuron(c: ModelConfig) -> None:
    if not 0.0 <= c.membrane_decay < 1.0 or c.threshold <= 0.0:
        _refuse(c, "membrane_decay must lie in [0, 1) and threshold be positive")
    if not (c.membrane_decay * 4096).is_integer():
        nearest = round(c.membrane_decay * 4096) / 4096
        _refuse(
            c,
            f"membrane_decay={c.membrane_decay} is no multiple of 1/4096, the step of the target's "
            f"decays; the nearest is {nearest}",
        )
    if not c.is_spiking and (c.time_steps != 1 or c.routing != "dense"):
        _refuse(c, f"neuron={c.neuron!r} needs time_steps=1 and routing='dense'")
    least, most = (1, MAX_ACTIVATION_BITS) if c.neuron == "quantised_relu" else (0, 0)
    if not least <= c.activation_bits <= most:
        allowed = f"use {least} to {most}" if most else "only 'quantised_relu' has them; use 0"
        _refuse(c, f"activation_bits={c.activation_bits} with neuron={c.neuron!r}; {allowed}")


def _check_dense(c: ModelConfig) -> None:
    """Without a mixture, its options must be at rest: a set one would silently do nothing."""
    if c.routing == "dense":
        if c.num_experts != 1:
            _refuse(c, f"routing='dense' has one expert, got num_experts={c.num_experts}; use 1")
        for name, rest in (
            ("shared_experts", 0),
            ("mixture_every", 1),
            ("chain", "none"),
            ("cortical_feedback", False),
            ("hold", "step"),
            ("route_by", "token"),
            ("router_input", "spikes"),
            ("gate_gradient", "margin"),
            ("dispatch", "auto"),
        ):
            if getattr(c, name) != rest:
                _refuse(
                    c,
                    f"{name}={getattr(c, name)!r} needs a mixture; "
                    f"routing='dense' allows {rest!r} alone",
                )
        if c.prompt not in ("learned", "none"):
            _refuse(
                c,
                f"prompt={c.prompt!r} needs a mixture; "
                f"routing='dense' allows 'learned' and 'none', and builds no prompt",
            )
    elif c.mixture_every > c.total_depth:
        _refuse(
            c,
            f"mixture_every={c.mixture_every} leaves no mixture among {c.total_depth} blocks; "
            f"use 1 to {c.total_depth}, or routing='dense'",
        )
    elif c.mlp_width and c.mixture_every == 1:
        _refuse(
            c,
            f"mlp_width={c.mlp_width} is for dense blocks and every block is a mixture; "
            f"use expert_width, or mixture_every above 1",
        )


def _check_experts(c: ModelConfig) -> None:
    if c.num_experts > MAX_EXPERTS:
        _refuse(c, f"num_experts={c.num_experts} exceeds {MAX_EXPERTS}; use 1 to {MAX_EXPERTS}")
    if c.top_k > c.num_experts:
        _refuse(c, f"top_k={c.top_k} exceeds num_experts={c.num_experts}; use 1 to {c.num_experts}")
    if c.is_mixture and c.num_experts == 1:
        _refuse(c, "num_experts=1 leaves nothing to choose; use 2 or more, or routing='dense'")
    if c.num_groups > 1 and c.routing != "hierarchical":
        _refuse(c, f"num_groups={c.num_groups} needs routing='hierarchical', got {c.routing!r}")
    if c.routing == "hierarchical":
        if c.num_groups < 2 or c.num_experts % c.num_groups or c.num_groups == c.num_experts:
            _refuse(
                c,
                f"num_groups={c.num_groups} must be a proper divisor of num_experts="
                f"{c.num_experts}, at least 2",
            )
        group = c.num_experts // c.num_groups
        if c.top_k > group:
            _refuse(c, f"top_k={c.top_k} exceeds the {group} experts of a group; use 1 to {group}")
    if c.gate_gradient == "none" and c.routing == "noisy_top_k":
        _refuse(
            c,
            "routing='noisy_top_k' learns the size of its noise from the gates' gradient; "
            "use gate_gradient 'full', 'chosen' or 'margin', or routing='top_k'",
        )
    if c.gate_gradient == "full" and c.dispatch == "grouped":
        _refuse(
            c,
            "gate_gradient='full' needs the outputs of unchosen experts, which dispatch='grouped' "
            "does not compute; use gate_gradient 'chosen', 'margin' or 'none', or dispatch='masked'",
        )


def _check_router(c: ModelConfig) -> None:
    if not c.is_mixture:
        return
    if c.hold == "window" and not 0 <= c.hold_step < c.time_steps:
        _refuse(c, f"hold_step={c.hold_step} must lie in 0..{c.time_steps - 1}")
    if c.routing == "hash":
        if c.router_input != "spikes" or c.prompt != "none":
            _refuse(
                c,
                "routing='hash' hashes the token's spikes alone; use router_input='spikes' "
                "and prompt='none'",
            )
        return
    if c.routing == "expert_choice" and (c.route_by == "image" or c.router_input == "none"):
        _refuse(
            c,
            "routing='expert_choice' compares the tokens of an image; use route_by='token' and "
            "router_input='spikes'",
        )
    if c.routing == "expert_choice" and c.tokens_per_side == 1:
        _refuse(
            c,
            f"routing='expert_choice' lets tokens compete, and image_size={c.image_size} with "
            f"stem_strides={c.stem_strides} and {len(c.early_depths)} early stages leaves one; "
            f"use smaller strides, or routing='top_k'",
        )
    if c.router_input == "none" and c.prompt == "none":
        _refuse(
            c, "router_input='none' and prompt='none' leave nothing to route by; use one of them"
        )
    if c.router_input == "none" and c.route_by == "token":
        _refuse(c, "router_input='none' cannot tell tokens apart; use route_by='image'")


def _check_prompt(c: ModelConfig) -> None:
    if c.image_size % c.relay_stride:
        _refuse(c, f"relay_stride={c.relay_stride} does not divide image_size={c.image_size}")
    if c.relay_side % c.prompt_grid:
        side = f"image_size={c.image_size}"
        if c.relay_stride > 1:
            side = f"image_size / relay_stride = {c.relay_side}"
        _refuse(c, f"prompt_grid={c.prompt_grid} does not divide {side}")
    if c.relay_kernel % 2 == 0 or c.relay_kernel < 3:
        _refuse(c, f"relay_kernel={c.relay_kernel} must be odd and at least 3")
    if c.has_prompt and c.prompt in ("learned", "random") and c.input_channels > 3:
        _refuse(
            c,
            f"input_channels={c.input_channels}: relay cells know 1 (grey), 2 (events) and 3 "
            f"(colour); use prompt='none'",
        )
    if c.cortical_feedback:
        if c.prompt != "learned":
            _refuse(c, f"cortical_feedback=True needs prompt='learned', got {c.prompt!r}")
        if c.total_depth < 2:
            _refuse(
                c, "cortical_feedback=True needs at least 2 blocks: the first has none before it"
            )


def _check_chain(c: ModelConfig) -> None:
    if c.chain == "depth" and c.chain_length < 2:
        _refuse(c, f"chain='depth' needs chain_length of at least 2, got {c.chain_length}")
    if c.chain != "depth" and c.chain_length > 1:
        _refuse(c, f"chain_length={c.chain_length} needs chain='depth', got {c.chain!r}")
    if c.chain == "time" and (c.hold == "window" or c.cortical_feedback):
        _refuse(c, "chain='time' decides step by step; use hold='step' and no cortical_feedback")
    if c.chain == "time" and c.routing == "noisy_top_k":
        _refuse(
            c,
            "chain='time' computes earlier steps again at each step, with other noise each time; "
            "use routing='top_k'",
        )
