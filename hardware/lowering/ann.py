"""Multiply-accumulates of the non-spiking twins, counted while they run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from hardware.energy.ann import AnnLayer
from hardware.energy.quantised import QuantisedLayer
from hardware.errors import HardwareError
from spikingmoe.layers.attention import HeadProducts, QKAttention, SDSAttention
from spikingmoe.layers.neuron import And
from spikingmoe.model import SpikingTransformer

FIRST_AND_LAST, FIRST_AND_LAST_BITS = ("stem.convs.0.conv", "head"), 8


@torch.no_grad()
def count_ann_layers(model: SpikingTransformer, images: Tensor) -> list[AnnLayer]:
    """Multiply-accumulates per image of each part, all of them and those of non-zero activations.

    Convolutions count their executed taps (padding costs nothing), linear layers every weight per
    token. Where the spiking network has an AND there is a product, and a sum with a gain takes one
    multiply-accumulate per summand: qk attention sums queries per head, sdsa the products of key and
    value over the tokens; dwconv has neither; ssa takes its two matrix products.

    Args:
        images: (B, C, height, width), or event frames (B, T, C, height, width).
    """
    if model.config.is_spiking:
        raise HardwareError(
            "count_ann_layers needs a model with neuron='relu'; count spikes instead"
        )
    parts: dict[str, list[float]] = {}
    for name, watched in _count(model, images).items():
        total = parts.setdefault(_part(name), [0.0, 0.0])
        total[0] += watched.macs
        total[1] += watched.nonzero_macs
    n = len(images)
    return [
        AnnLayer(name=part, macs=macs / n, nonzero_macs=nonzero / n)
        for part, (macs, nonzero) in parts.items()
    ]


@torch.no_grad()
def count_quantised_layers(model: SpikingTransformer, images: Tensor) -> list[QuantisedLayer]:
    """What each layer of a quantised twin computes per image, counted as `count_ann_layers` does.

    The image, and what the head reads (a mean over tokens), count as 8 bits.

    Args:
        images: (B, C, height, width), or event frames (B, T, C, height, width).

    Raises:
        HardwareError: the model has another neuron than "quantised_relu".
    """
    bits, n = model.config.activation_bits, len(images)
    if not bits:
        raise HardwareError(
            f"count_quantised_layers needs neuron='quantised_relu', got {model.config.neuron!r}"
        )
    modules = dict(model.named_modules())
    return [
        QuantisedLayer(
            name=name,
            part=_part(name),
            macs=found.macs / n,
            nonzero_macs=found.nonzero_macs / n,
            activation_bits=FIRST_AND_LAST_BITS if name in FIRST_AND_LAST else bits,
            weights=weight.numel()
            if (weight := getattr(modules[name], "weight", None)) is not None
            else 0,
            inputs=found.inputs / n,
            outputs=found.outputs / n,
        )
        for name, found in _count(model, images).items()
    ]


@dataclass
class Watched:
    """Sums over images of one module."""

    macs: float = 0.0
    nonzero_macs: float = 0.0
    inputs: float = 0.0
    outputs: float = 0.0


def _count(model: SpikingTransformer, images: Tensor) -> dict[str, Watched]:
    """By module, in the order in which they run."""
    counts: dict[str, Watched] = {}
    handles = [
        watched.register_forward_hook(_hook(name, counter, counts))
        for name, module in model.named_modules()
        for watched, counter in _counters(module)
    ]
    try:
        model.eval()(images.transpose(0, 1) if images.ndim == 5 else images)
    finally:
        for handle in handles:
            handle.remove()
    return counts


Counter = Callable[[nn.Module, tuple[Tensor, ...], Tensor], tuple[float, float]]


def _counters(module: nn.Module) -> list[tuple[nn.Module, Counter]]:
    """What `module` computes, as (the module to watch while it runs, what its run costs)."""
    if isinstance(module, nn.Conv2d):
        return [(module, _count_conv)]
    if isinstance(module, nn.Linear):
        return [(module, _count_linear)]
    if isinstance(module, HeadProducts):
        return [(module, _count_head_products)]
    if isinstance(module, And):
        return [(module, _count_elements)]
    if isinstance(module, QKAttention):
        return [(module.query_neuron, _count_elements)]  # summed over the channels of a head
    if isinstance(module, SDSAttention):
        return [(module.key_value, _count_elements)]  # summed over the tokens
    return []


def _part(name: str) -> str:
    """stem, attention, mlp or head, from a module's name such as `blocks.0.mlp.mlp.up.linear`."""
    words = name.split(".")
    return words[2] if words[0] == "blocks" else words[0]


def _hook(name: str, counter: Counter, counts: dict[str, Watched]):
    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        total = counts.setdefault(name, Watched())
        macs, nonzero = counter(module, inputs, output)
        total.macs += macs
        total.nonzero_macs += nonzero
        total.inputs += sum(x.numel() for x in inputs)
        total.outputs += output.numel()

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


def _count_elements(
    _module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor
) -> tuple[float, float]:
    """One per output: its product, or its part in a sum."""
    return float(output.numel()), float((output != 0).sum())


def _count_head_products(
    module: nn.Module, inputs: tuple[Tensor, ...], _output: Tensor
) -> tuple[float, float]:
    """K^T V, then Q (K^T V), per head."""
    assert isinstance(module, HeadProducts)

    def both(*operands: Tensor) -> float:
        query, key, value = (
            x.double().unflatten(-1, (module.heads, -1)).transpose(2, 3) for x in operands
        )
        inner = key.mT @ value
        return float(inner.sum() + (query @ (inner != 0).double()).sum())

    return both(*(torch.ones_like(x) for x in inputs)), both(*((x != 0) for x in inputs))
