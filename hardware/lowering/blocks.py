"""A block, and a single branch on the residual stream."""

from __future__ import annotations

from torch import nn

from hardware.errors import LoweringError
from hardware.lowering.apply import apply_branch
from hardware.lowering.builder import Builder, Stream, as_stream
from hardware.lowering.prompt import lower_feedback_prompt
from spikingmoe.layers.sequence import Residual
from spikingmoe.model import Block


def lower_block(builder: Builder, block: Block, path: str, arriving: Stream) -> Stream:
    """U <- U + mixing(U); U <- U + attention(U); U <- U + mixture or MLP."""
    stream = as_stream(arriving, path)
    for name, branch in (("mixing", block.mixing), ("attention", block.attention)):
        if branch is not None:
            apply_branch(builder, branch, f"{path}.{name}", stream)
            builder.relay_stream(stream)
    shared = builder.prompt
    if block.prompt is not None:
        builder.prompt = _own_prompt(builder, block.prompt, f"{path}.prompt")
    name, last = ("mlp", block.mlp) if block.mlp is not None else ("moe", block.moe)
    if last is None:
        raise LoweringError(f"{path}.moe", "the block has neither a mixture nor an MLP")
    builder.previous = apply_branch(builder, last, f"{path}.{name}", stream)
    builder.prompt = shared
    builder.relay_stream(stream)
    return stream


def lower_residual(builder: Builder, residual: Residual, path: str, arriving: Stream) -> Stream:
    """U <- U + branch(U)."""
    stream = as_stream(arriving, path)
    apply_branch(builder, residual.branch, f"{path}.branch", stream)
    builder.relay_stream(stream)
    return stream


def _own_prompt(builder: Builder, prompt: nn.Module, path: str) -> str:
    if builder.relay_pool is None or builder.prompt is None:
        raise LoweringError(
            path, "cortical feedback needs the relay cells: prompt=RelayPool(config)"
        )
    return lower_feedback_prompt(
        builder, prompt, path, builder.relay_pool, builder.prompt, builder.previous
    )
