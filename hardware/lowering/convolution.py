"""3x3 convolutions with batch norm as synapses, which the stem, downsampling and mixing share."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from hardware.errors import LoweringError
from hardware.ir.synapses import Conv2d
from hardware.lowering.fold import Folded, fold_conv
from spikingmoe.layers.stem import ConvNorm


def fold_conv_norm(module: nn.Module, path: str) -> tuple[Folded, int]:
    """Weight and bias with the norm folded in, and the stride; LoweringError for another module."""
    if not isinstance(module, ConvNorm):
        raise LoweringError(path, f"no rule for {type(module).__name__}; use ConvNorm")
    return fold_conv(module.conv, module.norm), int(module.conv.stride[0])


def convolution(source: str, folded: Folded, stride: int) -> Callable[[str], Conv2d]:
    """The synapse of a 3x3 convolution, still without a target."""
    return lambda target: Conv2d(
        source=source, target=target, weight=folded[0], stride=(stride, stride), padding=(1, 1)
    )
