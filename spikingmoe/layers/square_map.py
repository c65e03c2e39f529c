"""Tokens as the square map that they are, row by row."""

from __future__ import annotations

import math

from torch import Tensor

from spikingmoe.shapes import Tokens


def square_map(tokens: Tokens, where: str) -> Tensor:
    """(T, B, N, D) -> (T, B, side, side, D).

    Raises:
        ValueError: N is no square; the message begins with `where`.
    """
    count = tokens.shape[2]
    side = math.isqrt(count)
    if side * side != count:
        raise ValueError(
            f"{where}: {count} tokens are no square map; use a square number of tokens"
        )
    return tokens.unflatten(2, (side, side))
