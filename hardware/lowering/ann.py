"""Multiply-accumulates of the non-spiking ReLU twin, counted while it runs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardware.energy.ann import AnnLayer
from hardware.errors import HardwareError
from spikingmoe.layers.attention import QKAttention
from spikingmoe.model import SpikingTransformer


@torch.no_grad()
def count_ann_layers(model: SpikingTransformer, images: Tensor) -> list[AnnLayer]:
    """Multiply-accumulates per image of each part, all of them and those of non-zero activations.

    Convolutions count their executed taps (padding costs nothing), linear layers every weight per
    token, attention its head sums (one per query) and its products (one per key).

    Args:
        images: (B, C, height, width).
    """
    if model.config.neuron != "relu":
        raise HardwareError(
            "count_ann_layers needs a model with neuron='relu'; count spikes instead"
        )
    counts: dict[str, list[float]] = {}
    handles = []
    for name, module in model.named_modules():
        counter = _counter(module)
        if counter is not None:
            handles.append(module.register_forward_hook(_hook(_part(name), counter, counts)))
    try:
        model.eval()(images)
    finally:
        for handle in handles:
            handle.remove()
    n = len(images)
    return [
        AnnLayer(name=name, macs=macs / n, nonzero_macs=nonzero / n)
        for name, (macs, nonzero) in counts.items()
    ]


Counter = Callable[[nn.Module, tuple[Tensor, ...], Tensor], tuple[float, float]]


def _counter(module: nn.Module) -> Counter | None:
    if isinstance(module, nn.Conv2d):
        return _count_conv
    if isinstance(module, nn.Linear):
        return _count_linear
    if isinstance(module, QKAttention):
        return _count_attention
    return None


def _part(name: str) -> str:
    """stem, attention, mlp or head, from a module's name such as `blocks.0.mlp.mlp.up.linear`."""
    words = name.split(".")
    return words[2] if words[0] == "blocks" else words[0]


def _hook(part: str, counter: Counter, counts: dict[str, list[float]]):
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        total = counts.setdefault(part, [0.0, 0.0])
        for index, count in enumerate(counter(module, inputs, output)):
            total[index] += count

    return hook


def _count_conv(
    module: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor
) -> tuple[float, float]:
    assert isinstance(module, nn.Conv2d)
    ones = torch.ones(1, 1, *module.kernel_size, dtype=torch.float64)
    active = inputs[0].double()
    per_group = module.out_channels // module.groups

    def taps(values: Tensor) -> float:
        summed = F.conv2d(
            values.sum(1, keepdim=True), ones, None, module.stride, module.padding, module.dilation
        )
        return float(summed.sum()) * per_group

    return taps(torch.ones_like(active)), taps((active != 0).double())


def _count_linear(
    module: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor
) -> tuple[float, float]:
    assert isinstance(module, nn.Linear)
    return (
        float(inputs[0].numel() * module.out_features),
        float((inputs[0] != 0).sum() * module.out_features),
    )


def _count_attention(
    module: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor
) -> tuple[float, float]:
    sums_and_products = 2.0 * inputs[0].numel()
    return sums_and_products, sums_and_products
