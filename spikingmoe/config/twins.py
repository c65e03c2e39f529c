"""The models that a mixture is compared with."""

from __future__ import annotations

from dataclasses import replace

from spikingmoe.config.model import ModelConfig


def dense_twin(config: ModelConfig, *, mlp_width: int = 0) -> ModelConfig:
    """The same shape with one MLP that is always on: no prompt, no router.

    Args:
        mlp_width: its hidden neurons; 0 is the width of one expert.
    """
    rest = ModelConfig()
    return replace(
        config,
        routing="dense",
        num_experts=1,
        top_k=1,
        num_groups=1,
        hold=rest.hold,
        route_by=rest.route_by,
        router_input=rest.router_input,
        gate_gradient=rest.gate_gradient,
        dispatch=rest.dispatch,
        shared_experts=0,
        mixture_every=1,
        mlp_width=mlp_width,
        chain="none",
        chain_length=1,
        prompt=rest.prompt,
        cortical_feedback=False,
    )


def relu_twin(config: ModelConfig) -> ModelConfig:
    """The dense twin with ReLU in place of spiking neurons and a single step."""
    return replace(dense_twin(config), neuron="relu", time_steps=1)
