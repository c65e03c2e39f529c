"""What lesions do to each class, as a heat map."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spikingmoe.analysis.effects import Effect, q_values
from spikingmoe.analysis.pictures import SMALL, UNKNOWN_COLOUR, new_figure, png_bytes

MOST_ROWS = 60
SIGNIFICANT = 0.05  # false discovery rate


def class_q_values(effects: Sequence[Effect]) -> np.ndarray:
    """(lesions, classes) McNemar's test per class, adjusted for all of them."""
    return q_values(np.stack([effect.p_by_class for effect in effects]))


def total_q_values(effects: Sequence[Effect]) -> np.ndarray:
    """(lesions,) McNemar's test over all images, adjusted for all of them."""
    return q_values(np.array([effect.p_value for effect in effects]))


def shown_effects(effects: Sequence[Effect]) -> list[int]:
    """Which effects have a row: all, or the 60 that change most answers; in their own order."""
    if len(effects) <= MOST_ROWS:
        return list(range(len(effects)))
    order = np.argsort([-effect.changed for effect in effects], kind="stable")
    return sorted(order[:MOST_ROWS].tolist())


def lesion_png(effects: Sequence[Effect], classes: Sequence[str]) -> bytes:
    """Change of accuracy per lesion and class, and over all classes, in percentage points.

    Cells whose change stands out (false discovery rate 5 %) are framed, or dotted where small.

    Raises:
        ValueError: without any effect.
    """
    if not effects:
        raise ValueError("lesion picture: no effect to show")
    rows = shown_effects(effects)
    change = np.array([[effects[i].change, *effects[i].change_by_class.tolist()] for i in rows])
    q = np.column_stack([total_q_values(effects), class_q_values(effects)])[rows]
    limit = max(float(np.nanmax(np.abs(change))), 0.01)
    wide = len(classes) + 1
    cell = 0.52 if wide <= 20 else 0.16
    longest = max(len(effects[i].target) for i in rows)
    figure = new_figure(1.6 + 0.075 * longest + cell * wide, 1.9 + 0.27 * len(rows))
    axes = figure.subplots()
    axes.set_facecolor(UNKNOWN_COLOUR)
    image = axes.imshow(
        100 * change, cmap="RdBu", vmin=-100 * limit, vmax=100 * limit, aspect="auto",
        interpolation="nearest",
    )  # fmt: skip
    for (y, x), value in np.ndenumerate(change):
        if np.isnan(value):
            continue
        if wide <= 20:
            colour = "white" if abs(value) > 0.6 * limit else "#222"
            axes.text(x, y, _points(value), ha="center", va="center", fontsize=7, color=colour)
        if q[y, x] < SIGNIFICANT and wide > 20:
            axes.plot(x, y, marker=".", markersize=3, color="black")
        elif q[y, x] < SIGNIFICANT:
            axes.plot(
                [x - 0.45, x + 0.45, x + 0.45, x - 0.45, x - 0.45],
                [y - 0.42, y - 0.42, y + 0.42, y + 0.42, y - 0.42],
                color="black", linewidth=1.4,
            )  # fmt: skip
    step = 1 if wide <= 20 else max(1, len(classes) // 25)
    ticks = [0, *range(1, wide, step)]
    axes.set_xticks(ticks, ["all", *classes[::step]], fontsize=SMALL,
                    rotation=0 if max(map(len, classes)) <= 3 else 60)  # fmt: skip
    axes.set_yticks(range(len(rows)), [effects[i].target for i in rows], fontsize=SMALL)
    axes.axvline(0.5, color="white", linewidth=4 if wide <= 20 else 1.5)
    axes.set_xlim(-0.5, wide - 0.5)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.tick_params(length=0)
    bar = figure.colorbar(image, ax=axes, shrink=min(1.0, 0.5 + 5 / len(rows)), pad=0.02)
    bar.set_label("percentage points", fontsize=SMALL)
    bar.ax.tick_params(labelsize=SMALL)
    left_out = len(effects) - len(rows)
    more = f"; {left_out} that change fewer answers are left out" if left_out else ""
    figure.suptitle("Change of accuracy when silenced", fontsize=12)
    figure.supxlabel(
        f"{effects[0].samples:,} images, {100 * effects[0].accuracy_before:.1f} % right before.\n"
        f"{'Framed' if wide <= 20 else 'Dots'}: McNemar's exact test, false discovery rate 5 %{more}.",
        fontsize=SMALL, color="#555",
    )  # fmt: skip
    return png_bytes(figure)


def _points(change: float) -> str:
    return "0" if abs(change) < 5e-5 else f"{100 * change:+.1f}"
