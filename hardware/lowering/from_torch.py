"""Torch model -> `SpikeGraph`: static synapses and LIF populations, nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from hardware.errors import LoweringError
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import Input
from hardware.lowering.apply import apply_layer
from hardware.lowering.builder import INPUT, Builder, Rules, Spikes, Stream, Tap, as_stream
from hardware.lowering.fold import to_numpy
from hardware.lowering.layers import lower_readout
from hardware.lowering.prompt import lower_prompt, lower_relay
from hardware.lowering.rules import BUILT_IN, check_rules
from hardware.lowering.structure import Model, check_structure, layers_of
from hardware.lowering.views import token_map
from hardware.passes.balance_delays import balance_delays
from hardware.passes.drop_dead import drop_dead
from spikingmoe.layers.prompt import RelayPool
from spikingmoe.layers.sequence import Readout
from spikingmoe.model import SpikingTransformer
from spikingmoe.sequential import SpikingSequential

Residual = Literal["relay", "unrolled"]
InputForm = Literal["graded", "binary"]


def lower(
    model: Model,
    *,
    residual: Residual = "relay",
    input: InputForm = "graded",
    rules: Rules | None = None,
) -> SpikeGraph:
    """The trained network as a balanced floating-point graph.

    Args:
        model: a `SpikingTransformer`, or a `SpikingSequential` of our layers.
        residual: "relay" sums the stream in graded relays (Loihi 2); "unrolled" gives each reader
            of the stream its own synapses from every earlier branch, binary spikes only.
        input: "binary" for images of 0 and 1, which enter as spikes of one bit; whoever runs the graph
            on others is told so.
        rules: how types of module of yours are lowered (`hardware.lowering.apply` says what a rule
            does); they go before ours.

    Raises:
        LoweringError: naming the module that cannot be lowered, and why.
        TypeError: rules that are no functions by type of module.

    Example:
        >>> from spikingmoe import create_model
        >>> graph = lower(create_model("digits"))
        >>> graph.populations["blocks.0.moe.gate"].shape
        (4, 4, 4)
    """
    return lower_with_taps(model, residual=residual, input=input, rules=rules)[0]


def lower_with_taps(
    model: Model,
    *,
    residual: Residual = "relay",
    input: InputForm = "graded",
    rules: Rules | None = None,
) -> tuple[SpikeGraph, dict[str, Tap]]:
    """`lower`, and where in the torch model each population's spikes are found."""
    if not isinstance(model, (SpikingTransformer, SpikingSequential)):
        raise LoweringError(
            type(model).__name__,
            "only spikingmoe models can be lowered; compose yours as a SpikingSequential",
        )
    if residual not in ("relay", "unrolled"):
        raise ValueError(f"residual={residual!r}; use 'relay' or 'unrolled'")
    if input not in ("graded", "binary"):
        raise ValueError(f"input={input!r}; use 'graded' or 'binary'")
    own = check_rules(rules)
    check_structure(model, own)
    is_transformer = isinstance(model, SpikingTransformer)
    builder = Builder(
        time_steps=model.config.time_steps if is_transformer else model.time_steps,
        unrolled=residual == "unrolled",
        rules={**BUILT_IN, **own},
    )
    channels, size, _ = model.input_shape
    shape, limit = (size, size, channels), float(model.input_limit)
    builder.add(Input(name=INPUT, shape=shape, kind=input, limit=limit))
    if isinstance(model.prompt, RelayPool):  # with cortical feedback each block has its own prompt
        builder.relay_pool = model.prompt
        builder.prompt = lower_relay(builder, model.prompt, size)
    elif model.prompt is not None:
        builder.prompt = lower_prompt(builder, model.prompt, size)
    arriving: Stream | Spikes = Spikes(INPUT)
    for path, layer in layers_of(model):
        arriving = apply_layer(builder, layer, path, arriving)
    if is_transformer:
        _lower_head(builder, model, arriving)
    else:
        _lower_last(builder, model, arriving)
    graph = balance_delays(drop_dead(builder.graph()))
    notes: dict[str, object] = {"residual": residual}
    if is_transformer:
        notes["config"] = model.config.as_dict()
    taps = {name: tap for name, tap in builder.taps.items() if name in graph.populations}
    return replace(graph, notes=notes), taps


def _lower_head(builder: Builder, model: SpikingTransformer, arriving: Stream | Spikes) -> None:
    stream = as_stream(arriving, "head")
    view = token_map(stream.shape[0])
    x = builder.read_stream(stream, "head.x", model.head_neuron, "head_neuron", view)
    weight, bias = to_numpy(model.head.weight), to_numpy(model.head.bias)
    lower_readout(builder, "head.readout", "head", Spikes(x), weight, bias)


def _lower_last(builder: Builder, model: SpikingSequential, arriving: Stream | Spikes) -> None:
    path = f"layers.{len(model.layers) - 1}"
    readout = model.layers[-1]
    assert isinstance(readout, Readout)  # the constructor and check_structure see to it
    weight, bias = to_numpy(readout.linear.weight), to_numpy(readout.linear.bias)
    lower_readout(builder, f"{path}.readout", path, arriving, weight, bias)
