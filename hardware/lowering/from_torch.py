"""Torch model -> `SpikeGraph`: static synapses and LIF populations, nothing else."""

from __future__ import annotations

from typing import Literal

import numpy as np
from torch import nn

from hardware.errors import LoweringError
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import Input
from hardware.ir.synapses import Conv2d
from hardware.lowering.builder import Builder, Stream, Tap
from hardware.lowering.fold import fold_conv, fold_linear, norm_affine, to_numpy
from hardware.lowering.mixture import lower_dense_mlp, lower_mixture
from hardware.lowering.structure import check_structure
from hardware.lowering.views import channels_last, plain, token_map
from hardware.passes.balance_delays import balance_delays
from hardware.passes.drop_dead import drop_dead
from spikingmoe.layers.attention import QKAttention
from spikingmoe.layers.moe import DenseMLP, MixtureOfExperts
from spikingmoe.layers.prompt import SDPrompt
from spikingmoe.layers.stem import ConvNorm, Stem
from spikingmoe.model import Block, SpikingTransformer

Residual = Literal["relay", "unrolled"]
INPUT = "input"


def lower(model: SpikingTransformer, *, residual: Residual = "relay") -> SpikeGraph:
    """The trained network as a balanced floating-point graph.

    Args:
        residual: "relay" sums the stream in graded relays (Loihi 2); "unrolled" gives each reader
            of the stream its own synapses from every earlier branch, binary spikes only.

    Raises:
        LoweringError: naming the module that cannot be lowered, and why.

    Example:
        >>> from spikingmoe import create_model
        >>> graph = lower(create_model("digits"))
        >>> graph.populations["blocks.0.moe.gate"].shape
        (4, 4, 4)
    """
    return lower_with_taps(model, residual=residual)[0]


def lower_with_taps(
    model: SpikingTransformer, *, residual: Residual = "relay"
) -> tuple[SpikeGraph, dict[str, Tap]]:
    """`lower`, and where in the torch model each population's spikes are found."""
    if not isinstance(model, SpikingTransformer):
        raise LoweringError(type(model).__name__, "only spikingmoe models can be lowered")
    if residual not in ("relay", "unrolled"):
        raise ValueError(f"residual={residual!r}; use 'relay' or 'unrolled'")
    check_structure(model)
    config = model.config
    builder = Builder(time_steps=config.time_steps, unrolled=residual == "unrolled")
    size, channels = config.image_size, config.input_channels
    builder.add(Input(name=INPUT, shape=(size, size, channels), limit=float(model.input_limit)))
    prompt = _lower_prompt(builder, model.prompt, config.image_size) if model.prompt else None
    stream = _lower_stem(builder, model.stem, size)
    for index, block in enumerate(model.blocks):
        _lower_block(builder, block, f"blocks.{index}", stream, prompt)
    _lower_head(builder, model, stream)
    graph = balance_delays(drop_dead(builder.graph()))
    notes: dict[str, object] = {"config": config.as_dict(), "residual": residual}
    return SpikeGraph(
        populations=graph.populations,
        synapses=graph.synapses,
        time_steps=graph.time_steps,
        gate_limits=graph.gate_limits,
        notes=notes,
    ), {name: tap for name, tap in builder.taps.items() if name in graph.populations}


def _lower_stem(builder: Builder, stem: nn.Module, size: int) -> Stream:
    if not isinstance(stem, Stem):
        raise LoweringError(
            "stem", f"no rule for {type(stem).__name__}; use spikingmoe.layers.Stem"
        )
    source = INPUT
    for index, module in enumerate(stem.convs):
        assert isinstance(module, ConvNorm)
        weight, bias = fold_conv(module.conv, module.norm)
        stride = int(module.conv.stride[0])
        size = (size - 1) // stride + 1

        def conv(
            target: str, source: str = source, weight: np.ndarray = weight, stride: int = stride
        ) -> Conv2d:
            return Conv2d(
                source=source, target=target, weight=weight, stride=(stride, stride), padding=(1, 1)
            )

        if index == len(stem.convs) - 1:
            stream = Stream(shape=(size, size, len(weight)), bias=bias)
            builder.stream_term(stream, conv)
            builder.relay_stream(stream)
            return stream
        path = f"stem.neurons.{index}"
        target = builder.lif(
            f"stem.lif{index}",
            (size, size, len(weight)),
            stem.neurons[index],
            path,
            channels_last,
            bias,
        )
        builder.synapses.append(conv(target))
        source = target
    raise LoweringError("stem", "it has no convolution")


def _lower_prompt(builder: Builder, prompt: nn.Module, size: int) -> str:
    if not isinstance(prompt, SDPrompt):
        raise LoweringError("prompt", f"no rule for {type(prompt).__name__}; use SDPrompt")
    fields = to_numpy(prompt.cells.weight())
    relay_shape = (size, size, len(fields))
    relay = builder.lif(
        "prompt.relay", relay_shape, prompt.relay_neuron, "prompt.relay_neuron", channels_last
    )
    half = fields.shape[-1] // 2
    builder.synapses.append(Conv2d(source=INPUT, target=relay, weight=fields, padding=(half, half)))
    # pool and projection are linear, so they are one dense synapse: BN(W pool(relay))
    scale, bias = norm_affine(prompt.project.norm)
    projection = to_numpy(prompt.project.linear.weight) * scale[:, None]
    pool = to_numpy(prompt.pool.weight)[:, 0]  # (R, window, window)
    window = pool.shape[-1]
    grid = size // window
    projection = projection.reshape(-1, len(pool), grid, 1, grid, 1)
    weight = projection * pool.reshape(1, len(pool), 1, window, 1, window)
    weight = weight.reshape(-1, len(pool), size, size).transpose(0, 2, 3, 1)
    name = builder.lif("prompt.lif", bias.shape, prompt.neuron, "prompt.neuron", plain, bias)
    builder.dense(relay, name, weight.reshape(len(bias), -1))
    return name


def _lower_block(
    builder: Builder, block: nn.Module, path: str, stream: Stream, prompt: str | None
) -> None:
    if not isinstance(block, Block):
        raise LoweringError(path, f"no rule for {type(block).__name__}; use spikingmoe.model.Block")
    _lower_attention(builder, block.attention, f"{path}.attention", stream)
    builder.relay_stream(stream)
    if isinstance(block.moe, MixtureOfExperts) and prompt is not None:
        lower_mixture(builder, block.moe, f"{path}.moe", stream, prompt)
    elif isinstance(block.mlp, DenseMLP):
        lower_dense_mlp(builder, block.mlp, f"{path}.mlp", stream)
    else:
        unknown = block.moe if block.moe is not None else block.mlp
        raise LoweringError(f"{path}.moe", f"no rule for {type(unknown).__name__}")
    builder.relay_stream(stream)


def _lower_attention(builder: Builder, attention: nn.Module, path: str, stream: Stream) -> None:
    if not isinstance(attention, QKAttention):
        raise LoweringError(
            path, f"no rule for {type(attention).__name__}; QKAttention can be lowered"
        )
    shape, side = stream.shape, stream.shape[0]
    view = token_map(side)
    x = builder.read_stream(stream, f"{path}.x", attention.neuron, f"{path}.neuron", view)
    query_weight, query_bias = fold_linear(attention.query)
    key_weight, key_bias = fold_linear(attention.key)
    query = builder.lif(
        f"{path}.q", shape, attention.query_neuron, f"{path}.query_neuron", view, query_bias
    )
    key = builder.lif(
        f"{path}.k", shape, attention.key_neuron, f"{path}.key_neuron", view, key_bias
    )
    builder.token_wise(x, query, query_weight)
    builder.token_wise(x, key, key_weight)
    gain = to_numpy(attention.gain)
    heads, channels = len(gain), shape[-1]
    member = np.kron(np.eye(heads), np.ones((1, channels // heads)))  # (heads, channels)
    token = builder.lif(
        f"{path}.token", (side, side, heads), attention.token_neuron, f"{path}.token_neuron", view
    )
    builder.token_wise(query, token, member * gain[:, None])
    gated = builder.logic(f"{path}.and", shape, "and", 1.5, tap=Tap(f"{path}.gate", view))
    builder.direct(key, gated)
    builder.token_wise(token, gated, member.T.copy())
    weight, bias = fold_linear(attention.project)
    stream.bias = stream.bias + bias
    builder.stream_term(
        stream,
        lambda target: Conv2d(source=gated, target=target, weight=weight[:, :, None, None]),
    )


def _lower_head(builder: Builder, model: SpikingTransformer, stream: Stream) -> None:
    side = stream.shape[0]
    x = builder.read_stream(stream, "head.x", model.head_neuron, "head_neuron", token_map(side))
    readout = builder.readout("head.readout", to_numpy(model.head.bias))
    weight = to_numpy(model.head.weight) / side**2
    builder.dense(x, readout, np.tile(weight, (1, side**2)))
