"""Random numbers as a hash: the published function, evenly spread, of nothing but its words."""

import numpy as np
import pytest
import torch
from scipy import stats

from spikingmoe.data.augment.random_numbers import (
    Draws,
    beta_quantiles,
    hashed,
    mix,
    normal_noise,
    normal_quantiles,
)

WORD = 1 << 64
GAMMA = 0x9E3779B97F4A7C15
#: The first outputs of splitmix64 seeded with 1234567, as other implementations test them.
PUBLISHED = (
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
    4593380528125082431,
    16408922859458223821,
)


def by_hand(z):
    """splitmix64's finaliser on Python's integers."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
    return z ^ (z >> 31)


def signed(word):
    return word - WORD if word >= WORD // 2 else word


def test_the_hash_is_splitmix64():
    states = [(1234567 + GAMMA * (i + 1)) % WORD for i in range(5)]
    assert [by_hand(s) for s in states] == list(PUBLISHED)
    mixed = mix(torch.tensor([signed(s) for s in states]))
    assert [int(m) % WORD for m in mixed] == list(PUBLISHED)


def test_words_are_hashed_one_after_the_other():
    state = 0
    for word in (7, 3, 2**40 + 5):
        state = by_hand((state + word + GAMMA) % WORD)
    assert int(hashed(7, 3, torch.tensor([2**40 + 5]))) % WORD == state
    assert int(hashed(3, 7)) != int(hashed(7, 3))


def test_a_draw_depends_on_seed_epoch_sample_and_number_alone():
    index = torch.tensor([5, 900, 17])
    bits = Draws(3, 2, index, 6).bits
    assert bits.shape == (6, 3)
    assert Draws(3, 2, index[1:2], 4).bits.equal(bits[:4, 1:2])
    for other in (Draws(4, 2, index, 6), Draws(3, 3, index, 6), Draws(3, 2, index + 1, 6)):
        assert not (other.bits == bits).any()
    assert len(bits.unique()) == bits.numel()


def test_draws_are_evenly_spread_and_independent():
    draws = Draws(0, 0, torch.arange(20_000), 3)
    uniform = draws.uniform(0).numpy()
    assert uniform.dtype == np.float32
    assert 0 <= uniform.min() < 1e-3
    assert 0.999 < uniform.max() < 1
    assert stats.kstest(uniform, "uniform").pvalue > 0.01
    for a, b in ((0, 1), (1, 2)):
        assert abs(np.corrcoef(draws.uniform(a), draws.uniform(b))[0, 1]) < 0.03  # 4 deviations
    neighbours = np.corrcoef(uniform[:-1], uniform[1:])[0, 1]
    assert abs(neighbours) < 0.03
    counts = draws.integer(1, 9).bincount(minlength=9)
    assert len(counts) == 9
    assert stats.chisquare(counts.numpy()).pvalue > 0.01
    assert float(draws.coin(2, 0.25).float().mean()) == pytest.approx(0.25, abs=0.012)
    assert not draws.coin(2, 0.0).any()
    assert draws.coin(2, 1.0).all()


def test_normal_and_beta_numbers_have_their_distributions():
    draws = Draws(1, 0, torch.arange(20_000), 2)
    assert stats.kstest(draws.normal(0).numpy(), "norm").pvalue > 0.01
    for alpha in (0.5, 1.0, 4.0):  # below, float32 rounds much of the mass to 1
        numbers = draws.beta(1, alpha).numpy()
        assert stats.kstest(numbers, stats.beta(alpha, alpha).cdf).pvalue > 0.01
    assert float(normal_quantiles().mean()) == pytest.approx(0, abs=1e-6)
    assert beta_quantiles(1.0).allclose((torch.arange(4096) + 0.5) / 4096)


def test_noise_differs_by_key_and_place():
    noise = normal_noise(torch.tensor([3, 4]), 5000)
    assert noise.shape == (2, 5000)
    assert normal_noise(torch.tensor([4]), 5000)[0].equal(noise[1])
    assert abs(float(torch.corrcoef(noise)[0, 1])) < 0.06
    assert stats.kstest(noise[0].numpy(), "norm").pvalue > 0.01
