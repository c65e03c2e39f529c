"""Random numbers that are a hash of (seed, epoch, index of the sample, number of the draw).

No generator has a state, so what a sample gets depends neither on the batch it is in, nor on the number of
devices and workers, nor on where a run was resumed. The hash is splitmix64 (Steele, Lea and Flood 2014,
"Fast splittable pseudorandom number generators") on int64 tensors, whose products wrap around: integers
alone, so every device computes the same.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

BITS = 24  # of a draw: a float32 holds them exactly
QUANTILES = 4096  # entries of a table by which a distribution is drawn from
_GAMMA = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_WORD = 1 << 64


def mix(z: Tensor) -> Tensor:
    """splitmix64's finaliser: int64 -> int64, one to one; every bit depends on every bit."""
    z = (z ^ _shifted(z, 30)) * _signed(_FIRST)
    z = (z ^ _shifted(z, 27)) * _signed(_SECOND)
    return z ^ _shifted(z, 31)


def hashed(*words: int | Tensor) -> Tensor:
    """int64 hash of some words (numbers, or tensors that broadcast), in their order."""
    state = torch.zeros((), dtype=torch.int64)
    for word in words:
        number = word if isinstance(word, Tensor) else torch.tensor(_signed(word % _WORD))
        state = mix(state.to(number.device) + number + _signed(_GAMMA))
    return state


def batch_generator(seed: int, epoch: int, step: int) -> torch.Generator:
    """A generator that depends on nothing but the three numbers, so that a resumed run repeats it."""
    mixed = (seed * 1_000_003 + epoch) * 1_000_003 + step
    return torch.Generator().manual_seed(mixed % 2**63)


class Draws:
    """`count` independent draws for each sample of a batch.

    Args:
        index: (B,) int64, of the samples in the data set.

    Attributes:
        bits: (count, B) int64, uniform in 0..2^24 - 1.
    """

    def __init__(self, seed: int, epoch: int, index: Tensor, count: int) -> None:
        draws = torch.arange(count, device=index.device)[:, None]
        self.key = hashed(hashed(seed, epoch).to(index.device), index)
        self.bits = _shifted(hashed(self.key, draws), 64 - BITS)

    def uniform(self, draw: int) -> Tensor:
        """(B,) float32, uniform in [0, 1)."""
        return self.bits[draw].float() * 2.0**-BITS

    def integer(self, draw: int, below: int) -> Tensor:
        """(B,) int64, uniform in 0..below - 1."""
        return (self.bits[draw] * below) >> BITS

    def coin(self, draw: int, probability: float = 0.5) -> Tensor:
        """(B,) booleans, true with this probability."""
        return self.bits[draw] < round(probability * 2**BITS)

    def normal(self, draw: int) -> Tensor:
        """(B,) float32, standard normal: one of 4,096 quantiles."""
        return _look_up(normal_quantiles(), self.bits[draw])

    def beta(self, draw: int, alpha: float) -> Tensor:
        """(B,) float32, Beta(alpha, alpha): one of 4,096 quantiles."""
        return _look_up(beta_quantiles(alpha), self.bits[draw])


def normal_noise(key: Tensor, count: int) -> Tensor:
    """(k, count) float32 standard normal numbers, hashed from keys (k,)."""
    bits = _shifted(hashed(key[:, None], torch.arange(count, device=key.device)), 64 - BITS)
    return _look_up(normal_quantiles(), bits)


@functools.lru_cache
def normal_quantiles() -> Tensor:
    """(4096,) quantiles of the standard normal distribution, in the middle of equal shares."""
    from scipy.special import ndtri

    return torch.from_numpy(ndtri(_middles())).float()


@functools.lru_cache
def beta_quantiles(alpha: float) -> Tensor:
    """(4096,) quantiles of Beta(alpha, alpha), in the middle of equal shares."""
    from scipy.special import betaincinv

    return torch.from_numpy(betaincinv(alpha, alpha, _middles())).float()


def _middles():
    return ((torch.arange(QUANTILES).double() + 0.5) / QUANTILES).numpy()


def _look_up(table: Tensor, bits: Tensor) -> Tensor:
    return table.to(bits.device)[bits >> (BITS - (QUANTILES.bit_length() - 1))]


def _shifted(z: Tensor, places: int) -> Tensor:
    """z >> places with zeros coming in: int64 tensors would repeat the sign."""
    return (z >> places) & ((1 << (64 - places)) - 1)


def _signed(word: int) -> int:
    """The int64 with the bits of a 64-bit word."""
    return word - _WORD if word >= _WORD // 2 else word
