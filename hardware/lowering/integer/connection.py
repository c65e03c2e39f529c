"""A synapse in torch: messages (R, *source shape) -> currents (R, n_target), R rows of any meaning.

Weights come from outside, as whole numbers in floats with the exponent in them, so that the same
connection serves a finished program and one whose weights are being trained.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from hardware.ir.graph import SpikeGraph
from hardware.ir.nodes import size
from hardware.ir.synapses import AnySynapse, Conv2d, Dense, Sparse

#: (messages, weights) -> currents.
Connection = Callable[[Tensor, Tensor], Tensor]


def connection(graph: SpikeGraph, synapse: AnySynapse) -> Connection:
    """How a synapse delivers."""
    if isinstance(synapse, Dense):
        return _dense
    if isinstance(synapse, Conv2d):
        if synapse.weight.shape[2:] == (1, 1) and _is_plain(synapse):
            return _pointwise_of_few if synapse.expert is not None else _pointwise
        return _convolution(synapse)
    return _listed(synapse, size(graph.populations[synapse.target]))


def _is_plain(synapse: Conv2d) -> bool:
    return synapse.stride == (1, 1) and synapse.padding == (0, 0) and synapse.groups == 1


def _dense(messages: Tensor, weight: Tensor) -> Tensor:
    return F.linear(messages.flatten(1), weight)


def _pointwise(messages: Tensor, weight: Tensor) -> Tensor:
    return F.linear(messages, weight[:, :, 0, 0]).flatten(1)


def _pointwise_of_few(messages: Tensor, weight: Tensor) -> Tensor:
    """Of an expert: the positions where it is closed have no row in the product, and no gradient."""
    if messages.is_cuda:  # finding them would wait for the device
        return _pointwise(messages, weight)
    rows = messages.reshape(-1, messages.shape[-1])
    sent = torch.nonzero(rows.detach().any(dim=1)).squeeze(1)
    found = F.linear(rows[sent], weight[:, :, 0, 0])
    currents = found.new_zeros(len(rows), weight.shape[0]).index_copy(0, sent, found)
    return currents.reshape(len(messages), -1)


def _convolution(synapse: Conv2d) -> Connection:
    def deliver(messages: Tensor, weight: Tensor) -> Tensor:
        maps = messages.permute(0, 3, 1, 2)
        if maps.is_cuda:  # cuDNN may choose an algorithm that rounds
            found = _as_product(maps, weight, synapse)
        else:
            found = F.conv2d(
                maps,
                weight,
                stride=synapse.stride,
                padding=synapse.padding,
                dilation=synapse.dilation,
                groups=synapse.groups,
            )
        return found.permute(0, 2, 3, 1).flatten(1)

    return deliver


def _as_product(maps: Tensor, weight: Tensor, synapse: Conv2d) -> Tensor:
    """The convolution as a matrix product of its patches."""
    patches = F.unfold(
        maps,
        weight.shape[2:],
        stride=synapse.stride,
        padding=synapse.padding,
        dilation=synapse.dilation,
    )
    groups = synapse.groups
    rows, _, places = patches.shape
    patches = patches.reshape(rows, groups, -1, places)
    kernels = weight.reshape(groups, weight.shape[0] // groups, -1)
    reach = [d * (k - 1) + 1 for d, k in zip(synapse.dilation, weight.shape[2:], strict=True)]
    height = (maps.shape[2] + 2 * synapse.padding[0] - reach[0]) // synapse.stride[0] + 1
    found = torch.einsum("gok,rgkp->rgop", kernels, patches)
    return found.reshape(rows, weight.shape[0], height, places // height)


def _listed(synapse: Sparse, n_target: int) -> Connection:
    places = torch.from_numpy(np.asarray(synapse.rows, dtype=np.int64))
    columns = torch.from_numpy(np.asarray(synapse.columns, dtype=np.int64))
    single = len(torch.unique(places)) == n_target == len(places)
    order = torch.argsort(places) if single else torch.arange(len(places))
    identity = single and torch.equal(columns[order], torch.arange(n_target))

    def deliver(messages: Tensor, weight: Tensor) -> Tensor:
        flat, device = messages.flatten(1), messages.device
        if single:
            sent = (
                flat
                if identity and flat.shape[1] == n_target
                else flat[:, columns[order].to(device)]
            )
            return sent * weight[order.to(device)]
        arriving = flat[:, columns.to(device)] * weight
        return arriving.new_zeros(len(flat), n_target).index_add(1, places.to(device), arriving)

    return deliver
