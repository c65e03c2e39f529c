"""How a torch module's output is seen as a population's (T, B, *shape)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from hardware.lowering.builder import View
from spikingmoe.functional.routing import split_scores, top_k_mask


def plain(_inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """(T, B, M) as it is."""
    return output


def channels_last(_inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """(T, B, C, height, width) -> (T, B, height, width, C)."""
    return output.movedim(2, -1)


def token_map(side: int) -> View:
    """(T, B, N, D) -> (T, B, side, side, D)."""
    return lambda _inputs, output: output.unflatten(2, (side, side))


def channel_map(_inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """(T, B, D), one value per channel -> a map of one token, (T, B, 1, 1, D)."""
    return output[:, :, None, None]


def scores_map(side: int) -> View:
    """The scores that go into the gate, (T, B, N, E), as a map."""
    return lambda inputs, _output: inputs[0].unflatten(2, (side, side))


def comparator_map(side: int, pairs: list[tuple[int, int]]) -> View:
    """For each pair (e, j): whether expert j beats expert e, from the scores (T, B, N, E)."""
    loser = torch.tensor([e for e, _ in pairs])
    rival = torch.tensor([j for _, j in pairs])

    def view(inputs: tuple[Tensor, ...], _output: Tensor) -> Tensor:
        scores = inputs[0]
        difference = scores[..., rival] - scores[..., loser]
        beats = (difference > 0) | ((difference == 0) & (rival < loser))
        return beats.unflatten(2, (side, side))

    return view


def token_comparators(token: np.ndarray, rival: np.ndarray) -> View:
    """Whether token `rival` beats `token` for each expert: (T, B, N, E) -> (T, B, *pairs, E)."""
    first, second = torch.from_numpy(token), torch.from_numpy(rival)

    def view(inputs: tuple[Tensor, ...], _output: Tensor) -> Tensor:
        scores = inputs[0]
        difference = scores[:, :, second] - scores[:, :, first]
        return (difference > 0) | ((difference == 0) & (second < first)[..., None])

    return view


def choice_map(side: int, groups: int, k: int) -> View:
    """The best group, and the k best experts of each group, from scores (T, B, N, G + E)."""

    def view(inputs: tuple[Tensor, ...], _output: Tensor) -> Tensor:
        group, expert = split_scores(inputs[0], groups)
        chosen = [top_k_mask(group, 1), top_k_mask(expert, k).flatten(-2)]
        return torch.cat(chosen, dim=-1).unflatten(2, (side, side))

    return view


def at_step(side: int, step: int) -> View:
    """(T, B, N, E), silent but for one step, as a map."""

    def view(inputs: tuple[Tensor, ...], _output: Tensor) -> Tensor:
        only = torch.zeros_like(inputs[0])
        only[step] = inputs[0][step]
        return only.unflatten(2, (side, side))

    return view


def gated_expert(side: int, expert: int) -> View:
    """(E, T, B, N, D) -> one expert's (T, B, side, side, D)."""
    return lambda _inputs, output: output[expert].unflatten(2, (side, side))


def hidden_expert(side: int, expert: int) -> View:
    """(T, E, B, N, F) -> one expert's (T, B, side, side, F)."""
    return lambda _inputs, output: output[:, expert].unflatten(2, (side, side))
