"""The integer grid of the target: even 8-bit weights times a power of two."""

from __future__ import annotations

import numpy as np

LARGEST_MANTISSA = 254
LOWEST_EXPONENT, HIGHEST_EXPONENT = -1, 7  # at -1 and above no sum is ever floored


def to_integers(values: np.ndarray) -> np.ndarray:
    """Rounded to whole numbers (halves to even), int32."""
    return np.asarray(np.rint(values), dtype=np.int32)


def round_weight(weight: np.ndarray) -> tuple[np.ndarray, int]:
    """Integer weights as (even mantissa, exponent): mantissa * 2^exponent is nearest to `weight`."""
    largest_weight = float(np.abs(weight).max(initial=0.0))
    exponent = LOWEST_EXPONENT
    if largest_weight > 0:
        needed = int(np.ceil(np.log2(largest_weight / (LARGEST_MANTISSA + 1))))
        exponent = max(LOWEST_EXPONENT, needed)
    while np.rint(largest_weight / 2.0 ** (exponent + 1)) * 2 > LARGEST_MANTISSA:
        exponent += 1
    mantissa = 2 * np.rint(weight / 2.0 ** (exponent + 1))
    return mantissa.astype(np.int32), exponent
