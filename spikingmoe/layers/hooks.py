"""Whether anybody looks at a module."""

from __future__ import annotations

from torch import nn
from torch.nn.modules import module as torch_module


def has_hooks(module: nn.Module) -> bool:
    """Whether a hook wants to see what goes in or out of this module, or its gradients.

    A fused operation computes what the module computes without calling it, and hooks would be silent.
    """
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or torch_module._has_any_global_hook()
    )
