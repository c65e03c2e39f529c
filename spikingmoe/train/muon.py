"""Muon: momentum whose matrix is made orthogonal before it moves the weights (Jordan 2024)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

#: Coefficients of the quintic iteration, and how often it runs (Jordan 2024, kellerjordan.github.io/posts/muon).
QUINTIC, ITERATIONS = (3.4445, -4.7750, 2.0315), 5
#: Root mean square of an AdamW step in units of the learning rate (Liu 2025, arXiv 2502.16982).
ADAMW_RMS = 0.2


def orthogonalise(matrices: Tensor) -> Tensor:
    """The nearest (semi-)orthogonal matrix U V^T of each U S V^T, by Newton-Schulz iterations.

    Singular values come to lie between about 0.7 and 1.2, which training does not mind.

    Args:
        matrices: (..., rows, columns), none of them zero throughout.

    Returns:
        The same shape.
    """
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = matrices if wide else matrices.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)
    a, b, c = QUINTIC
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x if wide else x.mT


class Muon(torch.optim.AdamW):
    """Muon for the parameter groups with `orthogonal=True`, AdamW for the others.

    A matrix whose gradient is zero throughout (an expert without tokens) stays as it is.

    A group's parameters are matrices (rows, columns), convolutions (outputs, inputs, height, width),
    whose rows are the outputs, or experts (experts, rows, columns), each a matrix of its own. Steps
    are scaled by 0.2 sqrt(max(rows, columns)), with which learning rates and weight decays of AdamW
    suit them (Liu 2025).

    Args:
        momentum: decay of the running sum of gradients (Nesterov's form).
        others: as of `torch.optim.AdamW`; its betas and eps are of the groups that it moves.
    """

    def __init__(self, params: Any, *, momentum: float = 0.95, **others: Any) -> None:
        super().__init__(params, **others)
        for group in self.param_groups:
            group.setdefault("orthogonal", False)
            group["momentum"] = momentum

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step; the gradients of orthogonal groups are used up (None afterwards)."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            if group["orthogonal"]:
                for parameter in group["params"]:
                    if parameter.grad is not None:
                        self._move(parameter, group)
                        parameter.grad = None  # AdamW passes over it
        super().step()
        return loss

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if "momentum" not in state:
            state["step"] = torch.zeros(())  # AdamW looks for it in every state that it loads
            state["momentum"] = torch.zeros_like(gradient)
        state["step"] += 1
        running = state["momentum"].mul_(group["momentum"]).add_(gradient)
        direction = gradient + group["momentum"] * running
        matrices = direction.flatten(1) if direction.ndim != 3 else direction
        scale = ADAMW_RMS * max(matrices.shape[-2:]) ** 0.5
        # An expert that no token chose stays as it is: a normalised step does not fade as momentum does.
        live = (gradient.flatten(-2 if gradient.ndim == 3 else 0).abs().amax(-1) > 0).to(gradient)
        live = live[:, None, None] if gradient.ndim == 3 else live
        update = orthogonalise(matrices).reshape(parameter.shape)
        parameter.mul_(1 - group["lr"] * group["weight_decay"] * live)
        parameter.add_(update * live, alpha=-group["lr"] * scale)
