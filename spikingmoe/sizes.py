"""Parameters and synaptic operations of a model from its shapes alone: nothing is trained or run.

A message that a neuron sends costs one operation per connection it has. So for a population that
sends at a known rate, operations per image = T * rate * (connections that leave the population).
`connections` adds these up from the configuration as lowering lays them out (residuals by graded
relays); `estimate_synops` puts in the rates. The counts of a real run are in `hardware.energy`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

import torch

from spikingmoe.config import ModelConfig, dense_twin
from spikingmoe.layers.expert import Experts
from spikingmoe.layers.prompt import opponent_channels
from spikingmoe.model import SpikingTransformer

DEFAULT_RATE = 0.15


class Sender(StrEnum):
    """What sends over a connection, which decides how often."""

    IMAGE = "image"  # graded, every pixel at every step
    RELAY = "relay"  # graded, at every step: the residual stream and the router's scores
    NEURON = "neuron"  # a LIF neuron, at the rate that is assumed
    CHOSEN = "chosen"  # a neuron behind an expert's gate: at that rate if the gate is open
    GATE = "gate"  # K of E are open
    COMPARATOR = "comparator"  # of the two for a pair of experts, one fires
    CONSTANT = "constant"  # a spike at every step


@dataclass(frozen=True)
class Parameters:
    """Trainable numbers: of the whole model, and those that one token uses (its K experts)."""

    total: int
    active: int


@dataclass(frozen=True)
class SynopEstimate:
    """Operations per image at an assumed firing rate; see `estimate_synops`.

    Attributes:
        synops: accumulates that spikes trigger.
        first_layer_macs: multiply-accumulates of the graded image in the stem and the relay cells.
        relay_macs: those of the graded relays (residual stream and scores).
    """

    rate: float
    synops: float
    first_layer_macs: float
    relay_macs: float


def count_parameters(config: ModelConfig) -> Parameters:
    """Parameters of a model, without allocating it."""
    with torch.device("meta"):
        model = SpikingTransformer(config)
    total = sum(p.numel() for p in model.parameters())
    experts = {id(p): p for m in model.modules() if isinstance(m, Experts) for p in m.parameters()}
    per_expert = sum(p.numel() for p in experts.values()) // config.num_experts
    return Parameters(total, total - (config.num_experts - config.top_k) * per_expert)


def equal_parameters_width(config: ModelConfig) -> int:
    """The MLP width at which the dense twin's parameters are closest to the mixture's.

    They are affine in the width, so two models tell all. With earlier stages, a width they can halve.
    """
    step = width_step(config)
    one, two = (count_parameters(dense_twin(config, mlp_width=k * step)).total for k in (1, 2))
    steps = round((count_parameters(config).total - one) / (two - one)) + 1
    return max(1, steps) * step


def width_step(config: ModelConfig) -> int:
    """Widths of the last stage come in multiples of this: each earlier stage halves them."""
    return 2 ** len(config.early_depths)


def estimate_synops(config: ModelConfig, rate: float = DEFAULT_RATE) -> SynopEstimate:
    """Synaptic operations per image if every neuron fired at `rate` (spikes per neuron and step).

    Gates, comparators and what lies behind a gate follow from K and E; ANDs of the attention are
    taken to fire at `rate` too, which is their upper bound. Every pixel counts, in event frames too.

    Raises:
        ValueError: for a rate outside 0..1, and for options whose connections are not known here.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate={rate}; use a number of spikes per neuron and step in 0..1")
    chosen = config.top_k / config.num_experts
    often = {
        Sender.IMAGE: 1.0,
        Sender.RELAY: 1.0,
        Sender.NEURON: rate,
        Sender.CHOSEN: rate * chosen,
        Sender.GATE: chosen,
        Sender.COMPARATOR: 0.5,
        Sender.CONSTANT: 1.0,
    }
    sent: Counter[Sender] = Counter()
    for (_part, sender), count in connections(config).items():
        sent[sender] += count
    cost = {s: config.time_steps * often[s] * sent[s] for s in Sender}
    first_layer, relays = cost.pop(Sender.IMAGE), cost.pop(Sender.RELAY)
    return SynopEstimate(rate, sum(cost.values()), first_layer, relays)


def connections(config: ModelConfig) -> dict[tuple[str, Sender], int]:
    """Connections by (part of the network as in energy reports, what sends over them).

    Raises:
        ValueError: for options whose connections are not known here.
    """
    _check_known(config)
    found: Counter[tuple[str, Sender]] = Counter()
    for part, sender, count in _of_model(config):
        found[part, sender] += count
    return dict(found)


def conv_taps(size: int, kernel: int, stride: int) -> int:
    """(output, input) pairs of a padded convolution along one axis: those outside the map are none."""
    half = kernel // 2
    outputs = (size - 1) // stride + 1
    return sum(
        1 for o in range(outputs) for k in range(kernel) if 0 <= o * stride + k - half < size
    )


Term = tuple[str, Sender, int]


def _of_model(config: ModelConfig) -> Iterator[Term]:
    yield from _of_stem(config)
    if config.has_prompt:
        cells = 2 * int(torch.count_nonzero(opponent_channels(config.input_channels)))
        channels = 2 * len(opponent_channels(config.input_channels))
        taps = conv_taps(config.image_size, config.relay_kernel, config.relay_stride) ** 2
        yield "prompt", Sender.IMAGE, taps * cells
        yield "prompt", Sender.NEURON, config.relay_side**2 * channels * config.prompt_width
    side, block = config.stem_side, 0
    for index, depth in enumerate(config.stage_depths):
        stage = config.stage(index)
        if index > 0:
            before = config.stage(index - 1).embed_dim
            yield "stem", Sender.RELAY, side**2 * before
            yield "residual", Sender.NEURON, conv_taps(side, 3, 2) ** 2 * before * stage.embed_dim
            side = (side - 1) // 2 + 1
        for _ in range(depth):
            yield from _of_mixing(stage, side)
            yield from _of_attention(stage, side**2)
            if config.has_mixture(block):
                yield from _of_mixture(stage, side**2)
            else:
                yield "mlp", Sender.RELAY, side**2 * stage.embed_dim
                yield from _of_mlp(stage, side**2, stage.dense_width)
            yield "residual", Sender.RELAY, side**2 * stage.embed_dim
            block += 1
    yield "head", Sender.RELAY, side**2 * config.embed_dim
    yield "head", Sender.NEURON, side**2 * config.embed_dim * config.num_classes


def _of_stem(config: ModelConfig) -> Iterator[Term]:
    channels = (config.input_channels, *config.stem_channels, config.stage(0).embed_dim)
    size, last = config.image_size, len(config.stem_strides) - 1
    for i, stride in enumerate(config.stem_strides):
        taps = conv_taps(size, 3, stride) ** 2
        part = "residual" if i == last else "stem"
        sender = Sender.IMAGE if i == 0 else Sender.NEURON
        yield part, sender, taps * channels[i] * channels[i + 1]
        size = (size - 1) // stride + 1


def _of_mixing(stage: ModelConfig, side: int) -> Iterator[Term]:
    if stage.local_mixing == "none":
        return
    neurons, taps = side**2 * stage.embed_dim, conv_taps(side, 3, 1) ** 2
    yield "mixing", Sender.RELAY, neurons
    if stage.local_mixing == "conv":
        yield "residual", Sender.NEURON, taps * stage.embed_dim**2
    else:
        yield "mixing", Sender.NEURON, taps * stage.embed_dim
        yield "residual", Sender.NEURON, neurons * stage.embed_dim
    yield "residual", Sender.RELAY, neurons


def _of_attention(stage: ModelConfig, tokens: int) -> Iterator[Term]:
    if stage.attention == "none":
        return
    neurons = tokens * stage.embed_dim
    yield "attention", Sender.RELAY, neurons
    yield "attention", Sender.NEURON, 2 * neurons * stage.embed_dim  # queries and keys
    yield "attention", Sender.NEURON, neurons  # queries to the token neurons of their head
    yield "attention", Sender.NEURON, 2 * neurons  # keys and token neurons to the AND
    yield "residual", Sender.NEURON, neurons * stage.embed_dim
    yield "residual", Sender.RELAY, neurons


def _of_mixture(stage: ModelConfig, tokens: int) -> Iterator[Term]:
    experts, width, neurons = stage.num_experts, stage.expert_width, tokens * stage.embed_dim
    gates, pairs = tokens * experts, tokens * experts * (experts - 1)
    yield "mlp", Sender.RELAY, neurons
    yield "router", Sender.NEURON, neurons * experts  # to the scores
    if stage.has_prompt:
        yield "router", Sender.NEURON, gates * stage.prompt_width
    yield "router", Sender.CONSTANT, gates  # the homeostatic bias
    yield "router", Sender.RELAY, 2 * pairs
    yield "router", Sender.COMPARATOR, pairs
    yield "router", Sender.NEURON, neurons * experts  # tokens to the ANDs in front of the experts
    yield "router", Sender.GATE, neurons * experts
    yield "experts", Sender.CHOSEN, 2 * neurons * experts * width
    yield "experts", Sender.GATE, gates * width  # biases inside the experts
    yield "residual", Sender.GATE, neurons * experts  # biases behind them
    if stage.shared_experts:
        yield from _of_mlp(stage, tokens, stage.shared_experts * width)


def _of_mlp(stage: ModelConfig, tokens: int, width: int) -> Iterator[Term]:
    yield "mlp", Sender.NEURON, tokens * stage.embed_dim * width
    yield "residual", Sender.NEURON, tokens * stage.embed_dim * width


def _check_known(config: ModelConfig) -> None:
    rules = {
        "neuron": ("lif", "norse"),
        "attention": ("qk", "none"),
        "routing": ("top_k", "noisy_top_k", "dense"),
        "route_by": ("token",),
        "router_input": ("spikes",),
        "hold": ("step",),
        "chain": ("none",),
        "prompt": ("learned", "random", "none"),
        "cortical_feedback": (False,),
    }
    for name, known in rules.items():
        value = getattr(config, name)
        if value not in known:
            raise ValueError(
                f"model '{config.preset}': synaptic operations are estimated for {name} "
                f"{', '.join(map(repr, known))}, not {value!r}; train it and use "
                f"`spikingmoe energy`, which counts"
            )
