"""The models that a mixture is compared with."""

from __future__ import annotations

import math
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


def quantised_bits(time_steps: int) -> int:
    """ceil(log2(T + 1)): bits that tell as many levels apart as a neuron's spikes in T steps.

    The fair non-spiking rival of Yan et al. 2024 (arXiv 2409.08290).

    >>> [quantised_bits(steps) for steps in (1, 2, 4, 7, 8)]
    [1, 2, 3, 3, 4]
    """
    return math.ceil(math.log2(time_steps + 1))


def quantised_relu_twin(config: ModelConfig) -> ModelConfig:
    """The ReLU twin whose activations have as many bits as spikes in T steps can tell apart."""
    bits = quantised_bits(config.time_steps)
    return replace(relu_twin(config), neuron="quantised_relu", activation_bits=bits)
