"""Is the model built of the modules that the rules were written for?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from hardware.errors import LoweringError
from hardware.lowering.builder import Rules
from spikingmoe.layers.attention import (
    DepthwiseMixing,
    QKAttention,
    SDSAttention,
    SpikingSelfAttention,
)
from spikingmoe.layers.downsample import Downsample
from spikingmoe.layers.linear import LinearNorm
from spikingmoe.layers.mixing import ConvMixing
from spikingmoe.layers.norse_neuron import LIF_MODULES
from spikingmoe.layers.prompt import NoisePrompt, RelayPool, SDPrompt
from spikingmoe.layers.sequence import Convolution, Flatten, Readout, Residual
from spikingmoe.layers.stem import Stem
from spikingmoe.model import Block, SpikingTransformer
from spikingmoe.sequential import SpikingSequential

Model = SpikingTransformer | SpikingSequential

#: Where rules are asked within a block.
BLOCK_PLACES = ("mixing", "attention", "mlp", "moe")

_FROM_CONFIG = (
    Stem, QKAttention, SDSAttention, DepthwiseMixing, SpikingSelfAttention, ConvMixing,
    SDPrompt, RelayPool, NoisePrompt,
)  # fmt: skip

#: A layer as its constructor builds it from the same arguments.
_REBUILD: Mapping[type[nn.Module], Callable[[Any], nn.Module]] = {
    **{kind: lambda m: type(m)(m.config) for kind in _FROM_CONFIG},
    Block: lambda m: Block(m.config, m.index, m.previous_dim),
    Downsample: lambda m: Downsample(m.before, m.after),
    Convolution: lambda m: Convolution(m.inputs, m.outputs, m.stride),
    LinearNorm: lambda m: LinearNorm(m.inputs, m.outputs),
    Flatten: lambda _: Flatten(),
    Readout: lambda m: Readout(m.inputs, m.classes),
}


def check_structure(model: Model, rules: Rules) -> None:
    """LoweringError for the first module that is not what the model's constructor builds.

    The rules read weights, not `forward`: a subclass, a bias or a dilation that was put in later would
    be lowered as if it were not there. Decay and threshold of single neurons may differ. Modules of a
    type in `rules`, where rules are asked, are the business of the user's rule.
    """
    with torch.random.fork_rng(devices=[]):  # building draws random numbers; nobody else notices
        built = _rebuild_model(model, rules)
    expected = dict(built.named_modules(remove_duplicate=False))
    found = dict(model.named_modules(remove_duplicate=False))
    own = {name for name in rule_places(model) if name in found and type(found[name]) in rules}
    for name, module in found.items():
        if not _is_within(name, own):
            _check_module(name, module, expected.get(name), rules)
    missing = next((n for n in expected if n not in found and not _is_within(n, own)), None)
    if missing is not None:
        raise LoweringError(missing, f"the model lacks this {type(expected[missing]).__name__}")


def layers_of(model: Model) -> Iterator[tuple[str, nn.Module]]:
    """The layers in order with their paths, without what makes the logits."""
    if isinstance(model, SpikingSequential):
        yield from ((f"layers.{i}", layer) for i, layer in enumerate(list(model.layers)[:-1]))
        return
    yield "stem", model.stem
    first_blocks = model.first_blocks()
    for index, block in enumerate(model.blocks):
        if index in first_blocks:
            stage = first_blocks[index]
            yield f"downsamples.{stage}", model.downsamples[stage]
        yield f"blocks.{index}", block


def rule_places(model: Model) -> Iterator[str]:
    """Paths at which lowering asks for a rule."""
    for path, layer in layers_of(model):
        yield path
        if isinstance(layer, Block):
            yield from (f"{path}.{place}" for place in BLOCK_PLACES)
        elif isinstance(layer, Residual):
            yield f"{path}.branch"


def _rebuild_model(model: Model, rules: Rules) -> nn.Module:
    if not isinstance(model, SpikingSequential):
        return SpikingTransformer(model.config)
    return SpikingSequential(
        [_rebuild(layer, f"layers.{i}", rules) for i, layer in enumerate(model.layers)],
        input_shape=model.input_shape,
        time_steps=model.time_steps,
        prompt=None if model.prompt is None else _rebuild(model.prompt, "prompt", rules),
    )


def _rebuild(layer: nn.Module, path: str, rules: Rules) -> nn.Module:
    kind = type(layer)
    if kind in rules or kind in LIF_MODULES:
        return layer
    if kind is Residual:
        return Residual(_rebuild(layer.get_submodule("branch"), f"{path}.branch", rules))
    if kind not in _REBUILD:
        known = ", ".join(k.__name__ for k in (*_REBUILD, *LIF_MODULES, Residual))
        raise LoweringError(
            path,
            f"no rule for {kind.__name__}; use {known}, or give yours: rules={{{kind.__name__}: rule}}",
        )
    return _REBUILD[kind](layer)


def _is_within(name: str, own: set[str]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in own)


def _check_module(name: str, module: nn.Module, expected: nn.Module | None, rules: Rules) -> None:
    if type(module) in rules:
        raise LoweringError(
            name, f"{type(module).__name__} has a rule, but none is asked in this place"
        )
    if expected is None:
        raise LoweringError(name, f"{type(module).__name__} was added; no rule knows it")
    is_neuron = isinstance(expected, LIF_MODULES)
    if is_neuron and not isinstance(module, LIF_MODULES):
        return  # refused where the neuron is lowered
    same = type(module) is type(expected)
    if not same or (not is_neuron and module.extra_repr() != expected.extra_repr()):
        raise LoweringError(
            name,
            f"no rule for {type(module).__name__}({module.extra_repr()}) in the place of "
            f"{type(expected).__name__}({expected.extra_repr()})",
        )
