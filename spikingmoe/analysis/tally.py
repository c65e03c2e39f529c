"""What one router decided, counted over batches of images."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from spikingmoe.functional.routing import entropy_loss


def rolled_sums(counts_BSSE: Tensor, shifts_2RB: Tensor) -> Tensor:
    """Sums over images of maps that were rolled, each by its own shift: (R, side, side, E).

    Args:
        counts_BSSE: (B, side, side, E).
        shifts_2RB: (2, R, B) rows and columns to roll by, for each of R repetitions.
    """
    batch, side = counts_BSSE.shape[:2]
    steps = torch.arange(side)
    image = torch.arange(batch)[:, None, None]
    sums = []
    for down, right in zip(*shifts_2RB, strict=True):
        rows = (steps[None] - down[:, None]) % side
        columns = (steps[None] - right[:, None]) % side
        sums.append(counts_BSSE[image, rows[:, :, None], columns[:, None, :]].sum(0))
    return torch.stack(sums)


class RoutingTally:
    """Sums over images of what one router decided.

    Args:
        competitive: whether the probabilities of a row sum to 1, for their entropy.
        shuffles: maps rolled at random per image, to tell what chance gives.

    Attributes:
        choices_BE: choices per image and expert, a list of one array per batch.
        choices_NE: choices per token position and expert, over images and steps.
        rolled_RNE: the same after `shuffles` random rolls of every image's map.
        open_counts: (E + 1,) how many (image, step, token) had 0 to E gates open.
        open_per_step: (T,) gates opened per step, over images and tokens.
        entropy_per_step: (T,) entropy of the probabilities (`entropy_loss`: 0 sure, 1 blind), summed
            over images.
        changed, both_open: (T - 1,) rows open at two neighbouring steps: with other experts, in all.
    """

    def __init__(self, *, competitive: bool, shuffles: int, seed: int) -> None:
        self.competitive, self.shuffles = competitive, shuffles
        self.generator = torch.Generator().manual_seed(seed)
        self.images = 0
        self.choices_BE: list[np.ndarray] = []
        self.choices_NE: np.ndarray = np.zeros(())
        self.rolled_RNE: np.ndarray = np.zeros(())
        self.open_counts: np.ndarray = np.zeros(())
        self.open_per_step: np.ndarray = np.zeros(())
        self.entropy_per_step: np.ndarray = np.zeros(())
        self.changed: np.ndarray = np.zeros(())
        self.both_open: np.ndarray = np.zeros(())

    def add(self, gates: Tensor, probability: Tensor) -> None:
        """Count one batch.

        Args:
            gates: (T, B, N, E) of 0 and 1.
            probability: (T, B, N or 1, E), the soft form of the gates.
        """
        gates = gates.detach().cpu().to(torch.float64)
        self.images += gates.shape[1]
        per_image_BNE = gates.sum(0)
        self.choices_BE.append(per_image_BNE.sum(1).numpy())
        self.choices_NE = self.choices_NE + per_image_BNE.sum(0).numpy()
        self._roll(per_image_BNE)
        open_TBN = gates.sum(-1)
        histogram = torch.bincount(open_TBN.long().flatten(), minlength=gates.shape[-1] + 1)
        self.open_counts = self.open_counts + histogram.numpy()
        self.open_per_step = self.open_per_step + open_TBN.sum((1, 2)).numpy()
        entropy = [entropy_loss(p, competitive=self.competitive) for p in probability.detach()]
        self.entropy_per_step = self.entropy_per_step + gates.shape[1] * np.array(
            [float(value) for value in entropy]
        )
        both = (open_TBN[1:] > 0) & (open_TBN[:-1] > 0)
        differ = (gates[1:] != gates[:-1]).any(-1)
        self.both_open = self.both_open + both.sum((1, 2)).numpy()
        self.changed = self.changed + (both & differ).sum((1, 2)).numpy()

    def _roll(self, per_image_BNE: Tensor) -> None:
        batch, tokens, _ = per_image_BNE.shape
        side = math.isqrt(tokens)
        if side * side != tokens:
            raise ValueError(f"routing tally: {tokens} tokens are no square map")
        shifts = torch.randint(side, (2, self.shuffles, batch), generator=self.generator)
        maps = per_image_BNE.float().unflatten(1, (side, side))  # sums far below 2^24: exact
        rolled = rolled_sums(maps, shifts).flatten(1, 2)
        self.rolled_RNE = self.rolled_RNE + rolled.double().numpy()
