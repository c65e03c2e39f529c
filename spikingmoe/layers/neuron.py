"""Neurons: populations that turn currents into spikes (or, in the non-spiking twin, activations)."""

from __future__ import annotations

import snntorch
import torch
from torch import Tensor, nn

from spikingmoe.config import ModelConfig, Surrogate
from spikingmoe.functional.lif import lif
from spikingmoe.functional.surrogate import make_surrogate
from spikingmoe.kernels import NeuronConstants, can_fuse, fused_lif
from spikingmoe.layers.hooks import has_hooks
from spikingmoe.layers.quantised_relu import QuantisedReLU


class LIF(snntorch.Leaky):
    """Leaky integrate-and-fire neurons, all steps of a window at once.

    Equation and arguments as `spikingmoe.functional.lif`. The same neuron as `snntorch.Leaky` with
    `reset_mechanism="zero", reset_delay=False`, stepped from zero; it keeps no state between calls.
    Where there is a fused kernel for device and dtype (`spikingmoe.kernels`) it runs: same spikes.

    Args:
        membrane_decay: snnTorch's beta, in [0, 1).
        threshold: a spike needs a membrane strictly above it.

    Shapes: (T, ...) -> (T, ...).
    """

    def __init__(
        self,
        *,
        membrane_decay: float = 0.5,
        threshold: float = 1.0,
        surrogate: Surrogate = "atan",
        detach_reset: bool = False,
    ) -> None:
        with torch.device("cpu"):  # snnTorch reads its constants back, which "meta" cannot do
            super().__init__(
                beta=membrane_decay,
                threshold=threshold,
                spike_grad=make_surrogate(surrogate),
                reset_mechanism="zero",
                reset_delay=False,
            )
        snntorch.SpikingNeuron.instances.remove(self)  # a global list that would keep models alive
        self.membrane_decay = membrane_decay
        self.firing_threshold = threshold
        self.surrogate: Surrogate = surrogate
        self.detach_reset = detach_reset
        self._own_gradient = self.spike_grad

    @property
    def constants(self) -> NeuronConstants:
        """What a fused kernel must know."""
        return NeuronConstants(
            membrane_decay=self.membrane_decay,
            threshold=self.firing_threshold,
            surrogate=self.surrogate,
            detach_reset=self.detach_reset,
        )

    @property
    def has_kernel(self) -> bool:
        """Whether the fused kernels compute this neuron inside of a larger operation: not with a
        `spike_grad` put in later, nor where a hook wants to see the currents."""
        return self._is_plain and not has_hooks(self)

    @property
    def _is_plain(self) -> bool:
        return type(self) is LIF and self.spike_grad is self._own_gradient

    def forward(self, current: Tensor) -> Tensor:  # type: ignore[override]
        if self._is_plain and can_fuse(current):
            return fused_lif(current, self.constants)
        return lif(
            current,
            membrane_decay=self.membrane_decay,
            threshold=self.firing_threshold,
            spike_function=self.spike_grad,
            detach_reset=self.detach_reset,
        )

    def extra_repr(self) -> str:
        return f"membrane_decay={self.membrane_decay}, threshold={self.firing_threshold}"


def make_neuron(config: ModelConfig) -> nn.Module:
    """The neuron that the configuration asks for."""
    if config.neuron == "relu":
        return nn.ReLU()
    if config.neuron == "quantised_relu":
        return QuantisedReLU(config.activation_bits)
    if config.neuron == "norse":
        from spikingmoe.layers.norse_neuron import NorseLIF as Neuron
    else:
        Neuron = LIF
    return Neuron(
        membrane_decay=config.membrane_decay,
        threshold=config.threshold,
        surrogate=config.surrogate,
        detach_reset=config.detach_reset,
    )


class And(nn.Module):
    """Spikes where both inputs spike: the product of two binary tensors.

    On chip a LIF population with decay 0, threshold 1.5 and two synapses of weight 1.
    """

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a * b


class QuantisedAnd(And):
    """The product of two quantised activations, brought back to as many bits as they have."""

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.quantise = QuantisedReLU(bits)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.quantise(a * b)


def make_and(config: ModelConfig) -> And:
    """The AND that the configuration's neurons need."""
    if config.neuron == "quantised_relu":
        return QuantisedAnd(config.activation_bits)
    return And()
