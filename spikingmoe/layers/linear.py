"""Token-wise linear maps with batch norm."""

from __future__ import annotations

from torch import Tensor, nn

from spikingmoe.layers.fire import fire, normalise


class LinearNorm(nn.Module):
    """y = BN(W x) on the last axis; statistics over all other axes. (..., D_in) -> (..., D_out)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.inputs, self.outputs = inputs, outputs
        self.linear = nn.Linear(inputs, outputs, bias=False)
        self.norm = nn.BatchNorm1d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return normalise(self.norm, self.linear(x))

    def fire(self, x: Tensor, neuron: nn.Module) -> Tensor:
        """neuron(BN(W x)), fused where possible. (T, ..., D_in) -> (T, ..., D_out)."""
        return fire(neuron, self.norm, self.linear(x))
