"""Torch model -> `SpikeGraph`: static synapses and LIF populations, nothing else."""

from __future__ import annotations

from typing import Literal

import numpy as np
from torch import nn

from hardware.errors import LoweringError
from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import Input
from hardware.lowering.attention import lower_attention
from hardware.lowering.builder import INPUT, Builder, Stream, Tap
from hardware.lowering.experts import lower_dense_mlp, lower_mixture
from hardware.lowering.fold import to_numpy
from hardware.lowering.mixing import lower_mixing
from hardware.lowering.prompt import lower_feedback_prompt, lower_prompt, lower_relay
from hardware.lowering.stages import lower_downsample, lower_stem
from hardware.lowering.structure import check_structure
from hardware.lowering.views import token_map
from hardware.passes.balance_delays import balance_delays
from hardware.passes.drop_dead import drop_dead
from spikingmoe.layers.moe import DenseMLP, MixtureOfExperts
from spikingmoe.model import Block, SpikingTransformer

Residual = Literal["relay", "unrolled"]


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
    prompt = None
    if model.prompt is not None:  # the prompt, or with cortical feedback the relay cells
        lower_source = lower_relay if config.cortical_feedback else lower_prompt
        prompt = lower_source(builder, model.prompt, size)
    stream = lower_stem(builder, model.stem, size)
    first_blocks, previous = model.first_blocks(), None
    for index, block in enumerate(model.blocks):
        if index in first_blocks:
            stage = first_blocks[index]
            path = f"downsamples.{stage}"
            stream = lower_downsample(builder, model.downsamples[stage], path, stream)
        previous = _lower_block(
            builder, block, f"blocks.{index}", stream, prompt, model.prompt, previous
        )
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


def _lower_block(
    builder: Builder,
    block: nn.Module,
    path: str,
    stream: Stream,
    prompt: str | None,
    relay_pool: nn.Module | None,
    previous: str | None,
) -> str:
    """Returns the population X that the block's mixture or MLP reads; `previous` is that before it."""
    if not isinstance(block, Block):
        raise LoweringError(path, f"no rule for {type(block).__name__}; use spikingmoe.model.Block")
    if block.mixing is not None:
        lower_mixing(builder, block.mixing, f"{path}.mixing", stream)
        builder.relay_stream(stream)
    if block.attention is not None:
        lower_attention(builder, block.attention, f"{path}.attention", stream)
        builder.relay_stream(stream)
    if isinstance(block.moe, MixtureOfExperts):
        if block.prompt is not None:
            assert relay_pool is not None
            assert prompt is not None
            prompt = lower_feedback_prompt(
                builder, block.prompt, f"{path}.prompt", relay_pool, prompt, previous
            )
        x = lower_mixture(builder, block.moe, f"{path}.moe", stream, prompt)
    elif isinstance(block.mlp, DenseMLP):
        x = lower_dense_mlp(builder, block.mlp, f"{path}.mlp", stream)
    else:
        unknown = block.moe if block.moe is not None else block.mlp
        raise LoweringError(f"{path}.moe", f"no rule for {type(unknown).__name__}")
    builder.relay_stream(stream)
    return x


def _lower_head(builder: Builder, model: SpikingTransformer, stream: Stream) -> None:
    side = stream.shape[0]
    x = builder.read_stream(stream, "head.x", model.head_neuron, "head_neuron", token_map(side))
    readout = builder.readout("head.readout", to_numpy(model.head.bias))
    weight = to_numpy(model.head.weight) / side**2
    builder.dense(x, readout, np.tile(weight, (1, side**2)))
