"""A picture of the training curves."""

from __future__ import annotations

import io

INK, TRAINING, VALIDATION = "#33404d", "#0f9d8a", "#d9304f"


def draw_curves(history: list[dict[str, float]]) -> bytes:
    """Loss and accuracies by epoch, as a PNG file's bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    figure = Figure(figsize=(9, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    epochs = [record["epoch"] + 1 for record in history]
    marker = "o" if len(history) < 3 else None
    left.plot(epochs, [r["loss"] for r in history], color=TRAINING, marker=marker)
    left.set_title("training loss", loc="left", color=INK)
    for name, label, color in (
        ("train_accuracy", "training (augmented)", TRAINING),
        ("validation_accuracy", "validation", VALIDATION),
    ):
        points = [(r["epoch"] + 1, r[name]) for r in history if name in r]
        if points:
            x, y = zip(*points, strict=True)
            right.plot(x, y, color=color, label=label, marker=marker)
    right.yaxis.set_major_formatter(PercentFormatter(1.0))
    right.set_title("accuracy", loc="left", color=INK)
    right.legend(frameon=False)
    for axes in (left, right):
        axes.set_xlabel("epoch", color=INK)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.tick_params(colors=INK)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    return picture.getvalue()
