"""What a trained model must know of its data to take other images: classes and normalisation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from spikingmoe.data.image_data import ImageData, Normalisation


@dataclass(frozen=True)
class DataNotes:
    """The part of a data set that a checkpoint holds.

    Attributes:
        classes: names, in the order of the logits.
    """

    classes: tuple[str, ...]
    normalisation: Normalisation

    @classmethod
    def of(cls, data: ImageData) -> DataNotes:
        """The notes of a data set."""
        return cls(data.classes, data.normalisation)

    def as_dict(self) -> dict[str, object]:
        """JSON values; `data_notes` reads them back."""
        return {
            "classes": list(self.classes),
            "normalisation": {
                "mean": list(self.normalisation.mean),
                "std": list(self.normalisation.std),
            },
        }


def data_notes(values: Mapping[str, object], *, num_classes: int) -> DataNotes | None:
    """The notes among JSON values; None where there are none, as in checkpoints of earlier versions.

    Raises:
        ValueError: they are there, and malformed or of another number of classes.
    """
    classes, numbers = values.get("classes"), values.get("normalisation")
    if classes is None and numbers is None:
        return None
    if not isinstance(classes, list) or not all(isinstance(c, str) for c in classes):
        raise ValueError(f"classes={classes!r} must be a list of names")
    if len(classes) != num_classes:
        raise ValueError(f"{len(classes)} names of classes; the model has {num_classes}")
    if not isinstance(numbers, dict) or set(numbers) != {"mean", "std"}:
        raise ValueError(f"normalisation={numbers!r} needs mean and std")
    for name, values_of in numbers.items():
        if not isinstance(values_of, list) or not all(
            type(v) in (int, float) and math.isfinite(v) for v in values_of
        ):
            raise ValueError(f"normalisation: {name}={values_of!r} must be a list of numbers")
    return DataNotes(tuple(classes), Normalisation(tuple(numbers["mean"]), tuple(numbers["std"])))
