"""Data and model: what fits, and what the refusal says to do."""

from dataclasses import replace

import pytest
import torch

from spikingmoe.config import get_preset
from spikingmoe.data import ImageData, Normalisation, Split
from spikingmoe.data.fit import check_shapes
from spikingmoe.data.image_data import model_input

PLAIN = Normalisation((0.0,), (1.0,))


def data(*shape, classes=10):
    split = Split(torch.zeros(2, *shape, dtype=torch.uint8), torch.zeros(2).long(), PLAIN)
    names = tuple(map(str, range(classes)))
    return ImageData("some", names, PLAIN, split, split, split)


def test_images_and_frames_that_fit_are_taken():
    check_shapes(get_preset("digits"), data(1, 8, 8))
    check_shapes(get_preset("events-tiny"), data(16, 2, 48, 48))


@pytest.mark.parametrize(
    ("preset", "some", "message"),
    [
        (
            "digits",
            data(1, 9, 9),
            r"has images \(1, 9, 9\); model 'digits' takes \(1, 8, 8\); .*--image-size=9",
        ),
        ("digits", data(3, 8, 8), r"has images \(3, 8, 8\); .*--input-channels=3 --image-size=8"),
        ("digits", data(1, 8, 6), r"takes \(1, 8, 8\); use another preset$"),
        (
            "events-tiny",
            data(4, 2, 48, 48),
            "has 4 frames per sample; model 'events-tiny' takes 16",
        ),
        ("events-tiny", data(4, 2, 34, 34), r"has images \(2, 34, 34\); .* takes \(2, 48, 48\)"),
        (
            "digits",
            data(1, 8, 8, classes=7),
            "has 7 classes; .* num_classes=10; use --num-classes=7",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_what_to_do(preset, some, message):
    with pytest.raises(ValueError, match=message):
        check_shapes(get_preset(preset), some)


def test_still_images_fit_any_number_of_steps():
    for steps in (1, 4, 16):
        check_shapes(replace(get_preset("digits"), time_steps=steps), data(1, 8, 8))


def test_frames_reach_the_model_with_time_in_front():
    frames = torch.randn(3, 4, 2, 6, 6)
    assert model_input(frames).shape == (4, 3, 2, 6, 6)
    assert model_input(frames)[1, 2].equal(frames[2, 1])
    images = torch.randn(3, 2, 6, 6)
    assert model_input(images) is images


def test_splits_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"images have shape \(2, 8, 8\); needs \(n, C, height"):
        Split(torch.zeros(2, 8, 8), torch.zeros(2))
