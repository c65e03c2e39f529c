"""`spikingmoe predict`."""

from __future__ import annotations

from pathlib import Path

import torch
from jsonargparse import Namespace
from torch import Tensor

from spikingmoe.cli.chain import open_run, output_folder
from spikingmoe.cli.console import percent, say, show_table
from spikingmoe.cli.metrics import base_metrics, write_metrics
from spikingmoe.data.data_notes import DataNotes
from spikingmoe.data.image_files import read_image
from spikingmoe.train.checkpoint import Run

BATCH = 64


def run(args: Namespace) -> int:
    """Class and probability of image files, by a trained run alone: no data set is needed."""
    trained = open_run(args.run)
    notes = notes_of(trained, args.run)
    if not 1 <= args.top <= len(notes.classes):
        raise ValueError(
            f"top={args.top}; the model knows {len(notes.classes)} classes, "
            f"use 1 to {len(notes.classes)}"
        )
    channels, size, _ = trained.model.input_shape
    pixels = [read_image(path, channels=channels, size=size) for path in args.images]
    probabilities = probabilities_of(trained, notes, torch.stack(pixels))
    found = [ranking(row, notes.classes, args.top) for row in probabilities]
    show_table(
        f"{args.run}: {len(found)} {'image' if len(found) == 1 else 'images'}",
        ["file", "class", "probability", *(["runner-up"] if args.top > 1 else [])],
        [_cells(path, ranked) for path, ranked in zip(args.images, found, strict=True)],
    )
    if args.out is not None:
        metrics = {
            **base_metrics("predict", trained),
            "images": [
                {"file": path, **ranked[0], "top": ranked}
                for path, ranked in zip(args.images, found, strict=True)
            ],
            "probability_definition": "softmax of the logits, not calibrated",
        }
        say(f"metrics: {write_metrics(output_folder(args.out, Path(args.out)), metrics)}")
    return 0


def notes_of(trained: Run, given: str) -> DataNotes:
    """Classes and normalisation of a run; ValueError if its checkpoint has none."""
    if trained.data_notes is None:
        raise ValueError(
            f"{given}: does not say its classes and the normalisation of its images, as checkpoints "
            f"of earlier versions; train it again"
        )
    return trained.data_notes


@torch.no_grad()
def probabilities_of(trained: Run, notes: DataNotes, pixels: Tensor) -> Tensor:
    """uint8 pixels (n, C, height, width) -> softmax of the logits (n, classes)."""
    batches = notes.normalisation.images(pixels).split(BATCH)
    return torch.cat([trained.model(images).logits.double().softmax(1) for images in batches])


def ranking(probabilities: Tensor, classes: tuple[str, ...], top: int) -> list[dict[str, object]]:
    """The `top` most probable classes, first the most probable."""
    values, index = probabilities.sort(descending=True, stable=True)
    return [
        {"class": classes[int(i)], "probability": float(p)}
        for i, p in zip(index[:top], values[:top], strict=True)
    ]


def _cells(path: str, ranked: list[dict[str, object]]) -> list[str]:
    first, *others = ([str(r["class"]), percent(float(str(r["probability"])))] for r in ranked)
    runners_up = ", ".join(" ".join(pair) for pair in others)
    return [str(path), *first, *([runners_up] if others else [])]
