"""The statistics of the routing benchmark against values worked out by hand or from tables."""

import math
from fractions import Fraction

import numpy as np
import pytest

from benchmarks.intervals import (
    Comparison,
    Interval,
    compare,
    holm,
    interpolation_weights,
    t_interval,
)
from spikingmoe.analysis.effects import wilson_interval


def answers(*rows):
    """(seeds, images) booleans from strings of 0 and 1."""
    return np.array([[c == "1" for c in row] for row in rows])


def test_t_interval_of_three_values():
    """Mean 2, s = 1, n = 3: half width t(0.975, 2) / sqrt(3), 4.302653 from the table."""
    found = t_interval([1.0, 2.0, 3.0])
    half = 4.302652729911275 / math.sqrt(3)
    assert (found.mean, found.n) == (2.0, 3)
    assert found.low == pytest.approx(2.0 - half, abs=1e-9)
    assert found.high == pytest.approx(2.0 + half, abs=1e-9)


def test_t_interval_of_two_values_uses_one_degree_of_freedom():
    """0 and 2: s = sqrt(2), error 1, t(0.975, 1) = 12.7062; p of t = 1 with 1 degree is 1/2."""
    found = t_interval([0.0, 2.0])
    assert found.high == pytest.approx(1.0 + 12.706204736, abs=1e-6)
    assert found.p == pytest.approx(0.5, abs=1e-12)


def test_t_interval_agrees_with_its_own_p():
    """The interval touches 0 exactly where p is 0.05."""
    one = t_interval([1.0, 2.0, 3.0])
    assert one.low is not None
    half = one.mean - one.low
    found = t_interval([half - 1.0, half, half + 1.0])
    assert found.low == pytest.approx(0.0, abs=1e-12)
    assert found.p == pytest.approx(0.05, abs=1e-12)


def test_one_value_has_no_interval():
    found = t_interval([0.7])
    assert (found.mean, found.low, found.high, found.n, found.p) == (0.7, None, None, 1, None)
    assert found.side == 0
    with pytest.raises(ValueError, match="at least one value"):
        t_interval([])


def test_equal_values_have_an_interval_of_no_width():
    found = t_interval([0.5, 0.5, 0.5])
    assert (found.low, found.high, found.p) == (0.5, 0.5, 0.0)
    assert t_interval([0.0, 0.0]).p == 1.0


def test_wilson_interval_as_the_table_uses_it():
    """Its ends solve (p - share)^2 = z^2 p (1 - p) / n; 8 of 10 is (0.4902, 0.9433) in the literature."""
    low, high = wilson_interval(8, 10)
    z = 1.959963984540054
    for end in (low, high):
        assert (end - 0.8) ** 2 == pytest.approx(z * z * end * (1 - end) / 10, abs=1e-12)
    assert (low, high) == pytest.approx((0.4902, 0.9433), abs=1e-4)


@pytest.mark.parametrize(("b", "c"), [(0, 5), (5, 0), (1, 9), (3, 7), (4, 4), (0, 0)])
def test_mcnemar_against_counting_coins(b, c):
    """Images that one model alone got right, among others that both or neither got right."""
    ours = answers("1" * b + "0" * c + "1100")
    theirs = answers("0" * b + "1" * c + "1100")
    found = compare(ours, theirs)
    n = b + c
    tail = sum(Fraction(math.comb(n, i), 2**n) for i in range(min(b, c) + 1))
    assert (found.only_ours, found.only_theirs) == (b, c)
    assert found.mcnemar_p == pytest.approx(float(min(Fraction(1), 2 * tail)), abs=1e-12)
    assert found.over_seeds.mean == pytest.approx((b - c) / (n + 4))


def test_comparison_pairs_by_seed_and_by_image():
    """Differences per seed 1/4, 1/4, 1/2; per image (mean over seeds) 1, 0, 1/3, 0: by hand."""
    ours = answers("1100", "1110", "1110")
    theirs = answers("0100", "0110", "0100")
    found = compare(ours, theirs)
    assert found.over_seeds == t_interval([0.25, 0.25, 0.5])
    assert found.over_images == t_interval([1.0, 0.0, 1 / 3, 0.0])
    assert found.over_seeds.mean == pytest.approx(found.over_images.mean)
    assert (found.only_ours, found.only_theirs) == (4, 0)
    assert (found.ours, found.theirs) == pytest.approx((8 / 12, 4 / 12))


def test_pairing_removes_what_seeds_share():
    """Seeds differ by 40 points, the models by 10 in each: no spread is left over the seeds."""
    ours = answers("1111100000", "1111111110")
    theirs = answers("1111000000", "1111111100")
    assert compare(ours, theirs).over_seeds.low == pytest.approx(0.1)
    with pytest.raises(ValueError, match=r"\(2, 10\) answers cannot be paired with \(1, 10\)"):
        compare(ours, theirs[:1])


def test_an_interpolated_twin_has_no_discordant_images():
    found = compare(answers("10", "11"), np.array([[0.25, 0.75], [0.5, 0.5]]))
    assert found.over_seeds == t_interval([0.0, 0.5])
    assert (found.only_ours, found.only_theirs, found.mcnemar_p) == (None, None, None)


def test_a_lead_of_the_same_one_image_in_every_seed_is_no_claim_about_images():
    """Over the seeds it has no spread at all; over 100 images it does not stand out."""
    ours = answers(*["1" * 90 + "0" * 10] * 3)
    theirs = answers(*["1" * 89 + "0" * 11] * 3)
    found = compare(ours, theirs)
    assert found.over_seeds.side == 1
    assert found.verdict == "not told apart"


def comparison(seeds, images, n=3):
    """A comparison with the given ends of its two intervals."""
    over = [
        Interval(mean=sum(ends) / 2, low=ends[0], high=ends[1], n=n, p=0.01)
        for ends in (seeds, images)
    ]
    return Comparison(
        ours=0.5,
        theirs=0.5,
        over_seeds=over[0],
        over_images=over[1],
        only_ours=0,
        only_theirs=0,
        mcnemar_p=1.0,
    )


@pytest.mark.parametrize(
    ("seeds", "images", "says"),
    [
        ((0.001, 0.02), (0.001, 0.02), "better"),
        ((-0.02, -0.001), (-0.02, -0.001), "worse"),
        ((-0.01, 0.02), (0.001, 0.02), "not told apart"),
        ((0.001, 0.02), (-0.01, 0.02), "not told apart"),
        ((0.0, 0.01), (0.001, 0.01), "not told apart"),
        ((-0.01, 0.0), (-0.01, -0.001), "not told apart"),
        ((0.001, 0.02), (-0.02, -0.001), "not told apart"),
    ],
)
def test_verdict_needs_both_intervals_on_one_side(seeds, images, says):
    assert comparison(seeds, images).verdict == says


def test_one_seed_makes_no_claim():
    found = compare(answers("1" * 50), answers("0" * 50))
    assert found.verdict == "no claim"
    assert found.p is None


def test_interpolation_is_linear_in_the_logarithm():
    """Half way between 100 and 400 in log x lies 200."""
    assert interpolation_weights([400.0, 100.0], 200.0) == pytest.approx([0.5, 0.5])
    assert interpolation_weights([100.0, 400.0, 900.0], 400.0) == pytest.approx([0, 1, 0])
    assert interpolation_weights([100.0, 400.0, 900.0], 600.0) == pytest.approx([0, 0.5, 0.5])
    three_quarters = 100.0 * 4**0.75
    assert interpolation_weights([100.0, 400.0], three_quarters) == pytest.approx([0.25, 0.75])


def test_interpolation_never_extrapolates():
    assert interpolation_weights([100.0, 400.0], 99.9) is None
    assert interpolation_weights([100.0, 400.0], 400.1) is None
    assert interpolation_weights([100.0], 100.0) == pytest.approx([1.0])
    assert interpolation_weights([100.0, 100.0, 400.0], 200.0) == pytest.approx([0.25, 0.25, 0.5])
    for xs, x in (([0.0, 1.0], 0.5), ([], 1.0), ([1.0], 0.0)):
        with pytest.raises(ValueError, match="above 0"):
            interpolation_weights(xs, x)


def test_holm_by_hand():
    """0.01 * 4, 0.03 * 3, 0.04 * 2 raised to 0.09, 0.5."""
    assert holm([0.5, 0.03, 0.01, 0.04]) == pytest.approx([0.5, 0.09, 0.04, 0.09])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
