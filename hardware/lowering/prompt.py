"""The SDprompt as populations: relay cells, and prompt neurons that see them through one synapse."""

from __future__ import annotations

import copy

import numpy as np
from torch import nn

from hardware.errors import LoweringError
from hardware.ir.synapses import Conv2d
from hardware.lowering.builder import INPUT, Builder
from hardware.lowering.fold import fold_linear, to_numpy
from hardware.lowering.views import channels_last, plain
from spikingmoe.layers.linear import LinearNorm
from spikingmoe.layers.prompt import FeedbackPrompt, NoisePrompt, RelayPool, SDPrompt


def lower_prompt(builder: Builder, prompt: nn.Module, size: int) -> str:
    """P[t] = LIF(BN(W pool(relay[t]))), learned or random; the name of its population.

    Args:
        size: height and width of the image.

    Raises:
        LoweringError: for noise, which no population can draw, and for unknown modules.
    """
    if isinstance(prompt, NoisePrompt):
        raise LoweringError(
            "prompt",
            "prompt='noise' draws its bits at random and a LIF population has no source of noise; "
            "use prompt='learned', 'random' or 'none'",
        )
    if not isinstance(prompt, SDPrompt):
        raise LoweringError("prompt", f"no rule for {type(prompt).__name__}; use SDPrompt")
    relay = lower_relay(builder, prompt.relay_pool, size, path="prompt.relay_pool")
    weight, bias = _through_pool(prompt.project, prompt.relay_pool, "prompt")
    name = builder.lif("prompt.lif", bias.shape, prompt.neuron, "prompt.neuron", plain, bias)
    builder.dense(relay, name, weight)
    return name


def lower_relay(builder: Builder, pool: nn.Module, size: int, *, path: str = "prompt") -> str:
    """The relay cells behind the image, `prompt.relay`; the pool belongs to their readers.

    Args:
        size: height and width of the image.
        path: where the `RelayPool` is in the model.
    """
    if not isinstance(pool, RelayPool):
        raise LoweringError(path, f"no rule for {type(pool).__name__}; use RelayPool")
    fields = to_numpy(copy.deepcopy(pool.cells).double().weight())  # a product, not rounded
    stride = pool.cells.stride
    side = (size - 1) // stride + 1
    relay = builder.lif(
        "prompt.relay",
        (side, side, len(fields)),
        pool.relay_neuron,
        f"{path}.relay_neuron",
        channels_last,
    )
    half = fields.shape[-1] // 2
    builder.synapses.append(
        Conv2d(
            source=INPUT,
            target=relay,
            weight=fields,
            stride=(stride, stride),
            padding=(half, half),
        )
    )
    return relay


def lower_feedback_prompt(
    builder: Builder,
    module: nn.Module,
    path: str,
    relay_pool: nn.Module,
    relay: str,
    previous: str | None,
) -> str:
    """P_l = LIF(BN(W_l pool(relay)) + BN(F_l mean of X_{l-1})) of one block; its population's name.

    Args:
        path: where the `FeedbackPrompt` is in the model, `blocks.l.prompt`.
        relay: the population of the relay cells that `relay_pool` pools.
        previous: the population X_{l-1}, (side, side, D); None for the first block.
    """
    if not isinstance(module, FeedbackPrompt):
        raise LoweringError(path, f"no rule for {type(module).__name__}; use FeedbackPrompt")
    if (module.feedback is None) != (previous is None):
        raise LoweringError(path, f"feedback={module.feedback} does not fit previous={previous}")
    weight, bias = _through_pool(module.project, relay_pool, path)
    if module.feedback is not None and previous is not None:
        feedback, shift = fold_linear(module.feedback)
        bias = bias + shift
    name = builder.lif(f"{path}.lif", bias.shape, module.neuron, f"{path}.neuron", plain, bias)
    builder.dense(relay, name, weight)
    if module.feedback is not None and previous is not None:
        height, width, _ = builder.populations[previous].shape
        builder.dense(previous, name, np.tile(feedback / (height * width), (1, height * width)))
    return name


def _through_pool(
    project: nn.Module, relay_pool: nn.Module, path: str
) -> tuple[np.ndarray, np.ndarray]:
    """BN(W pool(.)) as one dense synapse: pool and projection are linear. (M, size^2 R) and bias."""
    if not isinstance(project, LinearNorm):
        raise LoweringError(
            f"{path}.project", f"no rule for {type(project).__name__}; use LinearNorm"
        )
    assert isinstance(relay_pool, RelayPool)
    projection, bias = fold_linear(project)
    pool = to_numpy(relay_pool.pool.weight)[:, 0]  # (R, window, window)
    channels, window, _ = pool.shape
    grid = round((projection.shape[1] / channels) ** 0.5)
    size = grid * window
    projection = projection.reshape(-1, channels, grid, 1, grid, 1)
    weight = projection * pool.reshape(1, channels, 1, window, 1, window)
    weight = weight.reshape(-1, channels, size, size).transpose(0, 2, 3, 1)
    return weight.reshape(len(bias), -1), bias
