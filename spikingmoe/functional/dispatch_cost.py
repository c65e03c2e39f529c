"""Whether the masked or the grouped form is faster: a rule fitted to `benchmarks/expert_speed.py`.

Both forms cost in proportion to the elements that they compute, D + F for each row, and some more for
every operation that they start. With all costs over that of an element of the grouped form:

    grouped:  chosen rows * (D + F)  +  START * (1 + E / EXPERTS_PER_START)
    masked:   MASKED * E * all rows * (D + F)

The grouped form is taken if it is cheaper with one expert per row. Over the 354 measured sizes (2 to
64 experts, 64 to 2048 rows) the choice was 1 % slower than the better form on average and at most
10 % in 95 of 100 cases; the others lie where both take 2 to 6 ms. The figures are of a CPU with one
thread; on a GPU they are a guess.
"""

from __future__ import annotations

MASKED = 1.25
START = 80_000
EXPERTS_PER_START = 12


def masked_is_faster(*, rows: int, experts: int, elements: int) -> bool:
    """Whether computing all experts on all rows is faster than sorting out which are chosen.

    Args:
        rows: T * B * N.
        elements: D + F.
    """
    grouped = rows * elements + START * (1 + experts / EXPERTS_PER_START)
    return MASKED * experts * rows * elements < grouped
