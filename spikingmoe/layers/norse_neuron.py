"""The same neuron on Norse's parameters, state and reset: a second backend for the one equation."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from spikingmoe.config import Surrogate
from spikingmoe.functional.surrogate import make_surrogate
from spikingmoe.layers.neuron import LIF

DT = 1.0  # in units of one time step: dt * tau_mem_inv is the share of the membrane that leaks


class NorseLIF(nn.Module):
    """Leaky integrate-and-fire neurons from Norse's parts, all steps of a window at once.

        u[t] = membrane_decay * v[t-1] + current[t];  s[t] = u[t] > threshold (strictly)
        v[t] = reset_method(s[t], u[t], v_reset = 0)

    Norse's own `lif_box_feed_forward_step` integrates u = v + dt tau_mem_inv (current - v): the same
    membrane for dt tau_mem_inv = 1 - membrane_decay and a current divided by that, but rounded in
    another order, so that neurons at their threshold may answer differently. `step` takes the same
    `LIFBoxParameters` and state and applies the leak before the jump, as Norse's
    `iaf_feed_forward_step` adds it: bit for bit what `spikingmoe.layers.LIF` computes. The surrogates
    are ours, since Norse has none of them (its "super" of version 1.1 ignores its slope).

    Norse: Pehle and Pedersen 2021, doi 10.5281/zenodo.4422025.

    Args:
        membrane_decay: in [0, 1), such that 1 - (1 - membrane_decay) is exact: Norse's parameter is
            the rest. Multiples of 1/4096, which models demand, are.
        threshold: a spike needs a membrane strictly above it.

    Shapes: (T, ...) -> (T, ...).

    Raises:
        ImportError: Norse, or something it imports, is not installed.
        ValueError: a decay that Norse's parameter would round.
    """

    def __init__(
        self,
        *,
        membrane_decay: float = 0.5,
        threshold: float = 1.0,
        surrogate: Surrogate = "atan",
        detach_reset: bool = False,
    ) -> None:
        super().__init__()
        norse = import_norse()
        leak = 1.0 - membrane_decay
        if 1.0 - leak != membrane_decay:
            raise ValueError(
                f"neuron 'norse': membrane_decay={membrane_decay} is not exact as 1 - tau_mem_inv; "
                f"use a multiple of 1/4096, such as {round(membrane_decay * 4096) / 4096}"
            )
        self.membrane_decay = membrane_decay
        self.firing_threshold = threshold
        self.detach_reset = detach_reset
        self.spike_function = make_surrogate(surrogate)
        self.p = norse.LIFBoxParameters(
            tau_mem_inv=leak / DT,
            v_leak=0.0,
            v_th=threshold,
            v_reset=0.0,
            reset_method=norse.reset_value,
        )
        self._state: type = norse.LIFBoxFeedForwardState
        twin = LIF(membrane_decay=membrane_decay, threshold=threshold, surrogate=surrogate)
        for name, constant in twin.state_dict().items():
            self.register_buffer(name, constant)  # so that either backend loads the other's weights

    def step(self, current: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One step with Norse's signature: (current (...), LIFBoxFeedForwardState) -> (s, state)."""
        p = self.p
        u = (1.0 - DT * p.tau_mem_inv) * state.v + (p.v_leak + current)
        spikes = self.spike_function(u - p.v_th).to(u.dtype)
        resetting = spikes.detach() if self.detach_reset else spikes
        return spikes, self._state(v=p.reset_method(resetting, u, p.v_reset, p.v_th))

    def forward(self, current: Tensor) -> Tensor:
        state = self._state(v=torch.zeros_like(current[0]))
        spikes = []
        for current_t in current.unbind(0):
            spikes_t, state = self.step(current_t, state)
            spikes.append(spikes_t)
        return torch.stack(spikes)

    def extra_repr(self) -> str:
        return f"membrane_decay={self.membrane_decay}, threshold={self.firing_threshold}"


#: The modules that are the LIF population of the contract.
LIF_MODULES = (LIF, NorseLIF)


def import_norse() -> ModuleType:
    """`norse.torch.functional.lif_box`; ImportError with the command where it cannot be imported."""
    try:
        return importlib.import_module("norse.torch.functional.lif_box")
    except ImportError as error:
        missing = error.name or "norse"
        command = (
            "pip install nir nirtorch && pip install --no-deps norse"
            if missing.split(".")[0] != "norse"
            else "pip install --no-deps norse"
        )
        raise ImportError(
            f"neuron='norse' needs norse, and {missing} is not installed; "
            f"use `{command}`, or neuron='lif', which computes the same"
        ) from None
