"""What a checkpoint says of the data, there and back, and refused where it is malformed."""

import json

import pytest

from spikingmoe.data import load_data
from spikingmoe.data.data_notes import DataNotes, data_notes
from spikingmoe.data.image_data import Normalisation

NOTES = DataNotes(("cat", "dog"), Normalisation((0.5, 0.25, 0.125), (1.0, 2.0, 3.0)))


def test_notes_survive_json():
    values = json.loads(json.dumps(NOTES.as_dict()))
    assert data_notes(values, num_classes=2) == NOTES


def test_notes_are_those_of_the_data():
    data = load_data("digits")
    notes = DataNotes.of(data)
    assert notes.classes == data.classes
    assert notes.normalisation == data.normalisation


def test_an_earlier_version_had_none():
    assert data_notes({"versions": {}}, num_classes=2) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"classes": None}, "must be a list of names"),
        ({"classes": ["cat", 1]}, "must be a list of names"),
        ({"classes": ["cat"]}, "1 names of classes; the model has 2"),
        ({"normalisation": None}, "needs mean and std"),
        ({"normalisation": {"mean": [0.0]}}, "needs mean and std"),
        ({"normalisation": {"mean": [0.0], "std": ["1"]}}, "std=.* must be a list of numbers"),
        ({"normalisation": {"mean": [float("nan")], "std": [1.0]}}, "mean=.* must be a list"),
        ({"normalisation": {"mean": [0.0], "std": [0.0]}}, "std above 0"),
    ],
)
def test_malformed_notes_are_refused(change, words):
    with pytest.raises(ValueError, match=words):
        data_notes({**NOTES.as_dict(), **change}, num_classes=2)
