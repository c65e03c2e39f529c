"""What a lesion did to the answers: paired on the same images, so that noise is not sold as effect."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, false_discovery_control

Z95 = 1.959963984540054  # two-sided 95 % of the normal distribution


def wilson_interval(right: int, total: int) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927): (centre +- half) with z = 1.96; (0, 1) for no data."""
    if total == 0:
        return 0.0, 1.0
    share, z2 = right / total, Z95**2
    scale = 1 + z2 / total
    centre = (share + z2 / (2 * total)) / scale
    half = Z95 / scale * math.sqrt(share * (1 - share) / total + z2 / (4 * total**2))
    return (0.0 if right == 0 else centre - half), (1.0 if right == total else centre + half)


def mcnemar_p(lost: int, gained: int) -> float:
    """Exact two-sided p-value (McNemar 1947): of the answers that changed, half should be losses.

    Args:
        lost: images that were right and are wrong now.
        gained: images that were wrong and are right now.
    """
    return 1.0 if lost + gained == 0 else float(binomtest(lost, lost + gained, 0.5).pvalue)


def paired_interval(lost: int, gained: int, total: int) -> tuple[float, float]:
    """95 % interval of the change of accuracy, paired (Agresti and Min 2005: half a pair more each)."""
    if total == 0:
        return -1.0, 1.0
    up, down, n = gained + 0.5, lost + 0.5, total + 2
    change = (up - down) / n
    half = Z95 * math.sqrt(max(0.0, up + down - (up - down) ** 2 / n)) / n
    return max(-1.0, change - half), min(1.0, change + half)


@dataclass(frozen=True)
class Effect:
    """Answers with a lesion against the answers without it, on the same images.

    Attributes:
        target: what was silenced.
        total: (classes,) images per class.
        before, after: (classes,) right answers per class.
        lost, gained: (classes,) images that became wrong, and right.
        changed: images whose predicted class changed, rightly or not.
        largest_logit_change: over all images and classes; exactly 0 if the lesion touched nothing.
        share_of_choices: of an expert or mixture, its share of its block's choices; else None.
    """

    target: str
    total: np.ndarray
    before: np.ndarray
    after: np.ndarray
    lost: np.ndarray
    gained: np.ndarray
    changed: int
    largest_logit_change: float
    share_of_choices: float | None = None

    @property
    def samples(self) -> int:
        """Images."""
        return int(self.total.sum())

    @property
    def accuracy_before(self) -> float:
        """Share of right answers without the lesion."""
        return float(self.before.sum() / self.samples)

    @property
    def accuracy_after(self) -> float:
        """Share of right answers with the lesion."""
        return float(self.after.sum() / self.samples)

    @property
    def change(self) -> float:
        """Accuracy after less accuracy before."""
        return float((int(self.gained.sum()) - int(self.lost.sum())) / self.samples)

    @property
    def change_interval(self) -> tuple[float, float]:
        """95 % interval of `change`, paired."""
        return paired_interval(int(self.lost.sum()), int(self.gained.sum()), self.samples)

    @property
    def p_value(self) -> float:
        """McNemar's exact test over all images, for this lesion alone."""
        return mcnemar_p(int(self.lost.sum()), int(self.gained.sum()))

    @property
    def change_by_class(self) -> np.ndarray:
        """(classes,) accuracy after less before; NaN where a class has no image."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(self.total > 0, (self.after - self.before) / self.total, np.nan)

    @property
    def p_by_class(self) -> np.ndarray:
        """(classes,) McNemar's exact test within each class."""
        pairs = zip(self.lost.tolist(), self.gained.tolist(), strict=True)
        return np.array([mcnemar_p(lost, gained) for lost, gained in pairs])


def compare_answers(
    target: str,
    labels: np.ndarray,
    logits_before: np.ndarray,
    logits_after: np.ndarray,
    *,
    share_of_choices: float | None = None,
) -> Effect:
    """The effect of a lesion from logits (images, classes) without and with it."""
    classes = logits_before.shape[1]
    predicted = [logits.argmax(axis=1) for logits in (logits_before, logits_after)]
    was, is_ = (p == labels for p in predicted)

    def per_class(chosen: np.ndarray) -> np.ndarray:
        return np.bincount(labels[chosen], minlength=classes)

    return Effect(
        target=target,
        total=np.bincount(labels, minlength=classes),
        before=per_class(was),
        after=per_class(is_),
        lost=per_class(was & ~is_),
        gained=per_class(~was & is_),
        changed=int((predicted[0] != predicted[1]).sum()),
        largest_logit_change=float(np.abs(logits_after - logits_before).max(initial=0.0)),
        share_of_choices=share_of_choices,
    )


def q_values(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Adjusted for many tests (Benjamini and Hochberg 1995), in the shape they came in.

    Reporting those with q below 0.05 makes one in twenty of the reported ones false, on average.
    """
    p = np.asarray(p_values, dtype=np.float64)
    return false_discovery_control(p.ravel()).reshape(p.shape) if p.size else p
