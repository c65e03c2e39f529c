"""The statistics of the benchmarks that train: intervals, paired comparisons, a rule for verdicts.

Over seeds: Student's t-interval of the mean, n - 1 degrees of freedom (Student 1908). Over images:
Wilson's interval of a share and the exact form of McNemar's test (`spikingmoe.analysis.effects`).
Over many comparisons: Holm's step-down (Holm 1979).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
from scipy import stats

from spikingmoe.analysis.effects import mcnemar_p

LEVEL = 0.95
Verdict = Literal["better", "worse", "not told apart", "no claim"]
RULE = (
    "better / worse: both 95 % intervals of the paired difference lie above / below 0, the one over "
    "seeds (what training anew would change) and the one over test images (what other images would "
    "change); not told apart: one of them reaches 0; no claim: fewer than 2 seeds in common"
)


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean with its interval over n values.

    Attributes:
        low, high: None where one value allows no interval.
        p: two-sided, of the t-test that the mean is 0; None without an interval.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    p: float | None = None

    @property
    def side(self) -> int:
        """1 if all of the interval lies above 0, -1 if below, 0 if it reaches 0 or is missing."""
        if self.low is None or self.high is None:
            return 0
        return int(self.low > 0) - int(self.high < 0)


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Accuracy of one model less that of another, paired by seed and by test image.

    Attributes:
        ours, theirs: mean accuracies of what was paired.
        over_seeds: of the difference per seed. over_images: of the difference per image (its mean
            over the seeds, so that the seeds do not count one image several times).
        only_ours, only_theirs: images that one alone got right, summed over seeds; None where the
            other is interpolated between models.
        mcnemar_p: exact, of these two numbers. It takes the seeds for independent, so it is too small
            with several of them: a second view, not part of the verdict.
    """

    ours: float
    theirs: float
    over_seeds: Interval
    over_images: Interval
    only_ours: int | None
    only_theirs: int | None
    mcnemar_p: float | None

    @property
    def verdict(self) -> Verdict:
        """What the difference allows to say, by `RULE`."""
        if self.over_seeds.n < 2:
            return "no claim"
        if self.over_seeds.side == 0 or self.over_seeds.side != self.over_images.side:
            return "not told apart"
        return "better" if self.over_seeds.side > 0 else "worse"

    @property
    def p(self) -> float | None:
        """Of the verdict: the larger p of the two intervals; None without a claim."""
        if self.over_seeds.p is None or self.over_images.p is None:
            return None
        return max(self.over_seeds.p, self.over_images.p)

    def as_dict(self) -> dict[str, object]:
        """JSON values."""
        return asdict(self) | {"verdict": self.verdict, "p": self.p}


def t_interval(values: Sequence[float] | np.ndarray, level: float = LEVEL) -> Interval:
    """mean +- t(level, n - 1) * s / sqrt(n), s with n - 1 in the denominator.

    Raises:
        ValueError: without values.

    >>> round(t_interval([1.0, 2.0, 3.0]).high, 4)  # 2 + 4.3027 / sqrt(3)
    4.4841
    """
    if len(values) == 0:
        raise ValueError("an interval needs at least one value")
    n, mean = len(values), float(np.mean(values))
    if n == 1:
        return Interval(mean=mean, low=None, high=None, n=1)
    error = float(np.std(values, ddof=1)) / math.sqrt(n)
    half = float(stats.t.ppf(0.5 + level / 2, n - 1)) * error
    p = float(mean == 0)  # values without spread: nothing to doubt them by
    if error > 0:
        p = float(2 * stats.t.sf(abs(mean) / error, n - 1))
    return Interval(mean=mean, low=mean - half, high=mean + half, n=n, p=p)


def compare(ours: np.ndarray, theirs: np.ndarray) -> Comparison:
    """Compare what two models got right, (seeds, images) each.

    Args:
        ours: booleans. theirs: booleans, or shares in 0..1 where the other is interpolated.

    Raises:
        ValueError: unless they pair up.
    """
    if ours.shape != theirs.shape or ours.ndim != 2:
        raise ValueError(f"{ours.shape} answers cannot be paired with {theirs.shape}")
    difference = ours.astype(np.float64) - theirs
    counts = (None, None, None)
    if theirs.dtype == np.bool_:
        b, c = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
        counts = (b, c, mcnemar_p(c, b))
    return Comparison(
        ours=float(ours.mean()),
        theirs=float(theirs.mean()),
        over_seeds=t_interval(difference.mean(axis=1)),
        over_images=t_interval(difference.mean(axis=0)),
        only_ours=counts[0],
        only_theirs=counts[1],
        mcnemar_p=counts[2],
    )


def interpolation_weights(xs: Sequence[float], x: float) -> np.ndarray | None:
    """Weights, one per point, whose sum over the points' y is y at `x`; None outside of the points.

    On straight lines over log x. Nothing is extrapolated; points with the same x share their weight.

    Raises:
        ValueError: without points, or with an x that has no logarithm.
    """
    if min(xs, default=0.0) <= 0 or x <= 0:
        raise ValueError("interpolation over log x needs points, and x above 0")
    places = sorted(set(xs))
    if not places[0] <= x <= places[-1]:
        return None
    unit = np.eye(len(places))
    by_place = [float(np.interp(math.log(x), np.log(places), unit[i])) for i in range(len(places))]
    return np.array([by_place[places.index(p)] / list(xs).count(p) for p in xs])


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p values, in the given order: p_(i) * (m - i + 1), made monotone, at most 1."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, p_values[index] * (len(order) - rank)))
        adjusted[index] = highest
    return adjusted
