"""How a torch module's output is seen as a population's (T, B, *shape)."""

from __future__ import annotations

import torch
from torch import Tensor

from hardware.lowering.builder import View


def plain(_inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """(T, B, M) as it is."""
    return output


def channels_last(_inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """(T, B, C, height, width) -> (T, B, height, width, C)."""
    return output.movedim(2, -1)


def token_map(side: int) -> View:
    """(T, B, N, D) -> (T, B, side, side, D)."""
    return lambda _inputs, output: output.unflatten(2, (side, side))


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
