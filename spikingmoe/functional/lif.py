"""The leaky integrate-and-fire equation over a whole window."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

SpikeFunction = Callable[[Tensor], Tensor]


def lif(
    current: Tensor,
    *,
    membrane_decay: float,
    threshold: float,
    spike_function: SpikeFunction,
    detach_reset: bool = False,
) -> Tensor:
    """Spikes of leaky integrate-and-fire neurons with a hard reset.

        u[t] = membrane_decay * v[t-1] + current[t];  s[t] = u[t] > threshold (strictly)
        v[t] = u[t] * (1 - s[t]);                     v before the first step is 0

    Args:
        current: (T, ...), all steps of one window.
        spike_function: u - threshold -> spikes, with a surrogate derivative (`snntorch.surrogate`).
        detach_reset: whether gradients pass by the reset (snnTorch lets them through).

    Returns:
        (T, ...) of 0 and 1, in the dtype of `current`.
    """
    spikes = []
    v: Tensor | None = None
    for current_t in current.unbind(0):
        u = current_t if v is None else membrane_decay * v + current_t
        spike = spike_function(u - threshold).to(u.dtype)
        spikes.append(spike)
        v = u * (1 - (spike.detach() if detach_reset else spike))
    return torch.stack(spikes)
