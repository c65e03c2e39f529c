"""Connections of a NIR graph as our synapses, and what is known while a graph is imported."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from hardware.errors import NirError
from hardware.ir.nodes import LIF, Input, Population, Readout, Relay
from hardware.ir.synapses import AnySynapse, Conv2d, Dense, Sparse, conv_output_shape
from hardware.nir.flat import Flat
from hardware.nir.layout import nir_order, our_shape
from hardware.nir.node_values import bias_of, matrix_of, padding_of, pair, parameter


@dataclass
class Signal:
    """What a node gives: a population's messages, seen in NIR's order and in a NIR shape."""

    population: str
    shape: tuple[int, ...]  # NIR's
    order: np.ndarray  # (n,) our flat index of each value


@dataclass
class Import:
    """A graph on its way: what of it is ours already."""

    flat: Flat
    dt: float
    notes: Mapping[str, Mapping[str, Any]]
    populations: dict[str, Population] = field(default_factory=dict)
    synapses: list[AnySynapse] = field(default_factory=list)
    signals: dict[str, Signal] = field(default_factory=dict)
    gains: dict[str, np.ndarray] = field(default_factory=dict)  # of neurons' inputs, where not 1


def connect(work: Import, name: str, gain: np.ndarray | float) -> None:
    """Synapses into the population `name` from all that lead there."""
    for source in work.flat.before[name]:
        if work.signals[source].population:
            connect_directly(work, work.signals[source], name, np.asarray(gain))
        else:
            connect_through(work, source, name, np.asarray(gain))


def connect_directly(work: Import, signal: Signal, target: str, gain: np.ndarray) -> None:
    """A population to another, neuron by neuron."""
    order = work.signals[target].order
    weight = np.broadcast_to(gain.ravel() if gain.size > 1 else gain, order.shape)
    work.synapses.append(
        Sparse(
            source=signal.population,
            target=target,
            rows=order,
            columns=signal.order,
            weight=np.array(weight, dtype=np.float64),
        )
    )


def connect_through(work: Import, linear: str, target: str, gain: np.ndarray) -> None:
    """The linear node's synapses from everything before it into `target`, and its bias."""
    node = work.flat.nodes[linear]
    for source in work.flat.before[linear]:
        signal = work.signals[source]
        if not signal.population:
            raise NirError(f"node '{linear}': what comes from '{source}' is no population")
        work.synapses.append(_synapse(work, linear, node, signal, target, gain))
    bias = bias_of(linear, node)
    if bias is not None and np.any(bias):
        _add_bias(work, linear, target, bias, gain)


def _add_bias(work: Import, linear: str, target: str, bias: np.ndarray, gain: np.ndarray) -> None:
    population, order = work.populations[target], work.signals[target].order
    full = bias
    channels = work.signals[target].shape[0]
    if full.size not in (len(order), channels):
        raise NirError(f"node '{linear}': {full.size} biases for {len(order)} neurons")
    if full.size != len(order):  # per channel of a map
        full = np.repeat(full.ravel(), len(order) // full.size)
    spread = np.empty(len(order))
    spread[order] = full.ravel() * (gain.ravel() if gain.size > 1 else gain)
    spread = spread.reshape(population.shape)
    if isinstance(population, (LIF, Readout)):
        whole = np.broadcast_to(population.bias, population.shape) + spread
        work.populations[target] = replace(population, bias=whole)
        return
    constant = "constant"
    if constant not in work.populations:
        work.populations[constant] = Input(name=constant, shape=(1,), kind="constant")
    elif not isinstance(work.populations[constant], Input):
        raise NirError(
            f"node '{linear}': its bias needs an input called 'constant', which is taken"
        )
    rows = np.flatnonzero(spread)
    work.synapses.append(
        Sparse(
            source=constant,
            target=target,
            rows=rows,
            columns=np.zeros(len(rows), dtype=np.int64),
            weight=spread.ravel()[rows],
        )
    )


def _synapse(
    work: Import,
    name: str,
    node: Mapping[str, Any],
    signal: Signal,
    target: str,
    gain: np.ndarray,
) -> AnySynapse:
    kind, order = node["type"], work.signals[target].order
    ends: dict[str, Any] = {"source": signal.population, "target": target}
    if kind in ("Affine", "Linear"):
        weight = matrix_of(name, node, len(signal.order), len(order))
        ours = np.zeros_like(weight)
        rows = weight * (gain.ravel()[:, None] if gain.size > 1 else gain)
        ours[np.ix_(order, signal.order)] = rows
        return Dense(weight=ours, **ends)
    if kind == "Scale":
        scale = parameter(name, node, "scale").ravel()
        if scale.size not in (1, len(order)):
            raise NirError(f"node '{name}' (Scale): {scale.size} factors for {len(order)} neurons")
        scale = np.broadcast_to(scale, order.shape)
        weight = scale * (gain.ravel() if gain.size > 1 else gain)
        return Sparse(rows=order, columns=signal.order, weight=np.array(weight), **ends)
    synapse = _convolution(work, name, node, signal, ends)
    if gain.size > 1:
        per_channel = gain.reshape(len(synapse.weight), -1)
        if np.ptp(per_channel, axis=1).any():
            raise NirError(
                f"node '{name}' ({kind}) leads to neurons whose input weights differ within a channel"
            )
        gain = per_channel[:, 0][:, None, None, None]
    return replace(synapse, weight=synapse.weight * gain)


def _convolution(
    work: Import, name: str, node: Mapping[str, Any], signal: Signal, ends: dict[str, Any]
) -> Conv2d:
    kind = node["type"]
    if len(signal.shape) != 3:
        raise NirError(f"node '{name}' ({kind}) needs a map (C, height, width), got {signal.shape}")
    source = work.populations[signal.population].shape
    if len(source) != 3 or source != our_shape(signal.shape):
        if math.prod(source) != math.prod(signal.shape) or signal.shape[1:] != (1, 1):
            raise NirError(f"node '{name}' ({kind}): a flattened map cannot become a map again")
        ends = {**ends, "source": _as_map(work, signal)}
    if kind != "Conv2d":
        size = pair(name, node, "kernel_size")
        weight = np.ones((signal.shape[0], 1, *size))
        if kind == "AvgPool2d":
            weight = weight / math.prod(size)
        return Conv2d(
            weight=weight,
            stride=pair(name, node, "stride"),
            padding=pair(name, node, "padding"),
            groups=signal.shape[0],
            **ends,
        )
    weight = parameter(name, node, "weight")
    if weight.ndim != 4:
        raise NirError(f"node '{name}' (Conv2d): weight needs four axes")
    stride, dilation = pair(name, node, "stride"), pair(name, node, "dilation")
    return Conv2d(
        weight=weight,
        stride=stride,
        padding=padding_of(name, node, weight, stride, dilation),
        dilation=dilation,
        groups=pair(name, node, "groups")[0],
        **ends,
    )


def _as_map(work: Import, signal: Signal) -> str:
    """A vector that convolutions read as a map of one position: the population takes that shape."""
    population = work.populations[signal.population]
    shape = (1, 1, math.prod(population.shape))
    arrays = {
        key: np.reshape(getattr(population, key), shape)
        for key in ("threshold", "bias")
        if np.size(getattr(population, key, 0.0)) > 1
    }
    work.populations[signal.population] = replace(population, shape=shape, **arrays)
    return signal.population


def output_shape(work: Import, name: str) -> tuple[int, ...]:
    """NIR shape of what a linear node gives."""
    node = work.flat.nodes[name]
    kind = node["type"]
    if kind in ("Affine", "Linear"):
        weight = parameter(name, node, "weight")
        if weight.ndim != 2:
            raise NirError(
                f"node '{name}' ({kind}): weight has shape {weight.shape}; needs two axes"
            )
        return (weight.shape[0],)
    inner = same_shape(name, [work.signals[s] for s in work.flat.before[name]])
    if kind == "Scale":
        return inner
    signal = Signal("", inner, nir_order(our_shape(inner)))
    probe = Import(work.flat, work.dt, {})
    probe.populations[""] = Relay(name="", shape=our_shape(inner))
    synapse = _convolution(probe, name, node, signal, {"source": "", "target": ""})
    height, width, channels = conv_output_shape(our_shape(inner), synapse)
    if min(height, width) < 1:
        raise NirError(f"node '{name}' ({kind}): nothing is left of a map {inner}")
    return (channels, height, width)


def same_shape(name: str, before: list[Signal]) -> tuple[int, ...]:
    """Of all that lead to a node; NirError if they differ."""
    shapes = {signal.shape for signal in before}
    if len(shapes) != 1:
        raise NirError(
            f"node '{name}' takes {len(before)} inputs of shapes {sorted(shapes)}; it needs at least "
            f"one, all alike"
        )
    return shapes.pop()
