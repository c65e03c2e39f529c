"""Silencing one target after the other, on the same images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from spikingmoe.analysis.effects import Effect, compare_answers
from spikingmoe.analysis.lesion import lesion
from spikingmoe.analysis.targets import Target
from spikingmoe.data.image_data import Split, model_input
from spikingmoe.model import SpikingTransformer

BATCH = 256


@torch.no_grad()
def answers(model: SpikingTransformer, split: Split) -> np.ndarray:
    """Logits (images, classes) in evaluation mode, which is put back afterwards."""
    weight, was_training = model.head.weight, model.training
    model.eval()
    try:
        batches = (split.at(slice(i, i + BATCH)).images for i in range(0, len(split), BATCH))
        inputs = (model_input(images).to(weight.device, weight.dtype) for images in batches)
        logits = [model(frames).logits.cpu() for frames in inputs]
    finally:
        model.train(was_training)
    return torch.cat(logits).numpy()


def measure_lesions(
    model: SpikingTransformer,
    split: Split,
    targets: Sequence[Target],
    *,
    reroute: bool = False,
    loads: Mapping[str, np.ndarray] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Effect]:
    """What silencing each target alone does to the answers, in the order of `targets`.

    Args:
        reroute: let tokens of silenced single experts go to the runner-up.
        loads: (E,) per mixture, noted beside the experts.
        progress: called with (lesions done, lesions).

    Raises:
        ValueError: a re-routing that is impossible, before anything is measured.
    """
    for target in targets:
        with lesion(model, [target], reroute=reroute):
            pass
    intact, labels = answers(model, split), split.labels.numpy()
    effects = []
    for done, target in enumerate(targets, start=1):
        with lesion(model, [target], reroute=reroute):
            silenced = answers(model, split)
        load = _share_of_choices(target, loads or {})
        effects.append(
            compare_answers(target.name, labels, intact, silenced, share_of_choices=load)
        )
        if progress is not None:
            progress(done, len(targets))
    return effects


def _share_of_choices(target: Target, loads: Mapping[str, np.ndarray]) -> float | None:
    if target.kind != "expert":
        return None
    mixture, expert = target.experts[0]
    return float(loads[mixture][expert]) if mixture in loads else None
