"""Synaptic operations of a model's layers, as NeuroBench and SpikingJelly count them in torch.

Both see linear layers and convolutions that torch computes. The graph is the one with relays, where a
layer is one synapse; unrolled, each reader of a residual stream repeats it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hardware.energy import Operation, count_operations
from hardware.lowering import lower
from hardware.passes.pipeline import prepare
from hardware.simulate import simulate
from spikingmoe.layers.expert import Experts
from spikingmoe.model import SpikingTransformer

#: Layer -> (source, target) of its synapses in the graph, as patterns.
SYNAPSES = (
    (r"stem\.convs\.0\.conv", r"input", r"stem\.lif0"),
    (r"stem\.convs\.(\d+)\.conv", r"stem\.lif{before}", r"(stem\.lif{0}|stream\.0)"),
    (r"(blocks\.\d+)\.attention\.query\.linear", r"{0}\.attention\.x", r"{0}\.attention\.q"),
    (r"(blocks\.\d+)\.attention\.key\.linear", r"{0}\.attention\.x", r"{0}\.attention\.k"),
    (r"(blocks\.\d+)\.attention\.project\.linear", r"{0}\.attention\.and", r"stream\.\d+"),
    (r"(blocks\.\d+)\.moe\.router\.from_prompt", r"prompt\.lif", r"{0}\.moe\.score"),
    (r"(blocks\.\d+)\.moe\.router\.from_token", r"{0}\.moe\.x", r"{0}\.moe\.score"),
    (r"(blocks\.\d+)\.moe\.experts", r"{0}\.moe\.experts\.\d+\.(gated|hidden)", r".*"),
    (r"(blocks\.\d+)\.mlp\.mlp\.up\.linear", r"{0}\.mlp\.x", r"{0}\.mlp\.hidden"),
    (r"(blocks\.\d+)\.mlp\.mlp\.down\.linear", r"{0}\.mlp\.hidden", r"stream\.\d+"),
    (r"head", r"head\.x", r"head\.readout"),
)
MEAN_FIRST = (
    "torch reads the mean over tokens and steps once, the graph every spike: not the same work"
)
MERGED = "the graph has one synapse for pooling and projection, folded together: not the same work"
STILL = "torch convolves a still image once, the graph is sent it at each of the {0} steps"
PER_TOKEN = (
    "torch computes an image's share once, the graph sends it to the scores of all {0} tokens"
)


@dataclass(frozen=True, kw_only=True)
class LayerCount:
    """One layer, counted twice, over all images.

    Attributes:
        ours, theirs: synaptic operations.
        factor: how often the graph repeats what torch does once.
        why: what explains the factor, or why the two are not compared.
        compared: whether `ours` is `theirs` times the factor.
    """

    layer: str
    by: str
    ours: int
    theirs: float
    factor: int = 1
    why: str = ""
    compared: bool = True


def count_layers(model: SpikingTransformer, images: Tensor) -> list[LayerCount]:
    """Every layer with weights of a model in float64, by both counters.

    Raises:
        ImportError: NeuroBench or SpikingJelly is missing.
    """
    model, images = model.double().eval(), images.double()
    given: dict[str, tuple[nn.Module, tuple[Tensor, ...]]] = {}

    def keep(name: str, module: nn.Module) -> torch.utils.hooks.RemovableHandle:
        return module.register_forward_hook(lambda m, x, _: given.update({name: (m, x)}))

    layers = (nn.Conv2d, nn.Linear, Experts)
    hooks = [keep(n, m) for n, m in model.named_modules() if isinstance(m, layers)]
    with torch.no_grad():
        model(images)
    for hook in hooks:
        hook.remove()
    graph = prepare(lower(model, input="binary"))
    counts = count_operations(graph, simulate(graph, images))
    ours = {tally.where: _synops(tally.operations) for tally in counts.synapses}
    tokens = graph.populations["head.x"].shape[0] * graph.populations["head.x"].shape[1]
    found = []
    for name, (module, arguments) in given.items():
        count = _ours(ours, name)
        repeats, why, compared = _explain(name, graph.time_steps, tokens)
        pairs = [("SpikingJelly", spikingjelly(module, arguments))]
        if not isinstance(module, Experts):  # no module of theirs: NeuroBench does not see it
            pairs.append(("NeuroBench", neurobench(module, arguments[0])))
        found += [
            LayerCount(
                layer=name, by=by, ours=count, theirs=theirs, factor=repeats, why=why,
                compared=compared,
            )
            for by, theirs in sorted(pairs)
        ]  # fmt: skip
    return found


def neurobench(layer: nn.Module, given: Tensor) -> float:
    """Accumulates or multiply-accumulates of one layer, as NeuroBench counts them."""
    from neurobench.metrics.utils.layers import macs

    return float(macs.single_layer_MACs(given.detach(), layer)[0])


def spikingjelly(layer: nn.Module, given: tuple[Tensor, ...]) -> float:
    """Synaptic operations inside one layer, as SpikingJelly counts them."""
    from spikingjelly.activation_based import op_counter

    counter = op_counter.SynOpCounter()
    with torch.no_grad(), op_counter.DispatchCounterMode([counter]):
        layer(*given)
    return float(counter.get_total())


def _synops(operations: Mapping[Operation, int]) -> int:
    both = (Operation.ACCUMULATE, Operation.MULTIPLY_ACCUMULATE)
    return sum(operations.get(operation, 0) for operation in both)


def _ours(counts: Mapping[str, int], layer: str) -> int:
    """Of the synapses that a layer became."""
    for pattern, source, target in SYNAPSES:
        if match := re.fullmatch(pattern, layer):
            names = [re.escape(group) for group in match.groups()]
            before = int(names[0]) - 1 if names and names[0].isdecimal() else ""
            ends = f"{source.format(*names, before=before)} -> {target.format(*names)}"
            where = re.compile(ends)
            return sum(count for one, count in counts.items() if where.fullmatch(one))
    return sum(c for one, c in counts.items() if one.endswith("-> prompt.lif"))


def _explain(layer: str, steps: int, tokens: int) -> tuple[int, str, bool]:
    if layer == "head":
        return 1, MEAN_FIRST, False
    if layer.startswith("prompt."):
        return 1, MERGED, False
    if layer == "stem.convs.0.conv":
        return steps, STILL.format(steps), True
    if layer.endswith("from_prompt"):
        return tokens, PER_TOKEN.format(tokens), True
    return 1, "", True
