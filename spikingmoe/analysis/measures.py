"""Entropy and mutual information of counts, and what chance alone would give."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

TINY = 1e-12


def shares(counts: np.ndarray, axis: int = -1) -> np.ndarray:
    """Counts over their sum along `axis`; NaN where nothing was counted."""
    total = counts.sum(axis=axis, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(total > 0, counts / total, np.nan)


def entropy_bits(counts: np.ndarray) -> float:
    """H = -sum_i p_i log2 p_i with p = counts / sum; 0 for no counts at all."""
    total = counts.sum()
    if total <= 0:
        return 0.0
    p = counts[counts > 0] / total
    return max(0.0, float(-(p * np.log2(p)).sum()))


def load_entropy(counts: np.ndarray) -> float:
    """Entropy of the experts' loads over log2(E): 1 is even, 0 is one expert for everything.

    Args:
        counts: (E,), E at least 2.
    """
    return entropy_bits(counts) / float(np.log2(len(counts)))


def mutual_information(table: np.ndarray) -> float:
    """I(A; B) = H(A) + H(B) - H(A, B) in bits, of a table of joint counts (A, B)."""
    joint = entropy_bits(table.ravel())
    return max(0.0, entropy_bits(table.sum(axis=1)) + entropy_bits(table.sum(axis=0)) - joint)


@dataclass(frozen=True)
class Information:
    """Mutual information against what it would be by chance.

    Counted on finite data, mutual information is never 0 (its bias grows with the table and with
    how alike the tokens of one image are), so a value means nothing without its baseline.

    Attributes:
        bits: as counted, the bias included.
        chance_bits: mean over tables that were shuffled such that there is nothing to know.
        limit_bits: the smaller one of the two entropies: no table with these margins has more.
        p_value: (1 + shuffled tables with as many bits) / (1 + shuffled tables).
        shuffles: number of shuffled tables.
    """

    bits: float
    chance_bits: float
    limit_bits: float
    p_value: float
    shuffles: int

    @property
    def excess_bits(self) -> float:
        """`bits` without what chance gives; may be below 0."""
        return self.bits - self.chance_bits

    @property
    def share(self) -> float:
        """`excess_bits` over `limit_bits`: 0 nothing beyond chance, 1 all there is to know."""
        return self.excess_bits / self.limit_bits if self.limit_bits > TINY else 0.0


def information(table: np.ndarray, shuffled: Iterable[np.ndarray]) -> Information:
    """Mutual information of a table of counts against shuffled tables of the same shape.

    Raises:
        ValueError: without any shuffled table.
    """
    bits = mutual_information(table)
    chance = np.array([mutual_information(one) for one in shuffled])
    if not len(chance):
        raise ValueError("information: no shuffled table to compare with; use 1 shuffle or more")
    limit = min(entropy_bits(table.sum(axis=0)), entropy_bits(table.sum(axis=1)))
    reached = int((chance >= bits - TINY).sum())
    return Information(
        bits=bits,
        chance_bits=float(chance.mean()),
        limit_bits=limit,
        p_value=(1 + reached) / (1 + len(chance)),
        shuffles=len(chance),
    )


def class_table(counts_BE: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """Choices per class and expert (classes, E), from choices per image and its label."""
    table = np.zeros((classes, counts_BE.shape[1]), dtype=np.float64)
    np.add.at(table, labels, counts_BE)
    return table


def class_information(
    counts_BE: np.ndarray, labels: np.ndarray, classes: int, *, shuffles: int, seed: int
) -> Information:
    """Mutual information between class and expert; chance: the labels dealt anew to the images.

    Whole images are shuffled, because the tokens and steps of one image are no independent draws:
    shuffling tokens would call the likeness of neighbours specialisation.
    """
    generator = np.random.default_rng(seed)
    one_hot = np.zeros((classes, len(labels)), dtype=np.float64)
    one_hot[labels, np.arange(len(labels))] = 1.0
    counts = counts_BE.astype(np.float64)
    dealt = (one_hot[:, generator.permutation(len(labels))] @ counts for _ in range(shuffles))
    return information(one_hot @ counts, dealt)
