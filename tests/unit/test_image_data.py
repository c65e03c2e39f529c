"""Splits and even subsets."""

import pytest
import torch

from spikingmoe.data import Normalisation, Split, load_data
from spikingmoe.data.image_data import dealt_order


@pytest.fixture(scope="module")
def digits():
    return load_data("digits")


def rows(images):
    return [tuple(image.flatten().tolist()) for image in images]


# ---- subsets


def test_a_subset_is_even_over_the_classes_and_holds_every_smaller_one(digits):
    previous: list = []
    for n in (1, 7, 10, 33, 100, 500, 1000):
        subset = digits.train.subset(n)
        counts = subset.labels.bincount(minlength=10)
        assert int(counts.sum()) == n
        assert int(counts.max()) - int(counts.min()) <= 1
        assert rows(subset.images)[: len(previous)] == previous
        previous = rows(subset.images)


def test_a_subset_is_fixed_mixed_and_keeps_its_labels(digits):
    subset, again = digits.train.subset(200), digits.train.subset(200)
    assert subset.images.equal(again.images)
    label_of = dict(zip(rows(digits.train.images), digits.train.labels.tolist(), strict=True))
    assert [label_of[row] for row in rows(subset.images)] == subset.labels.tolist()
    assert subset.labels[:10].tolist() != sorted(subset.labels[:10].tolist())
    assert rows(digits.train.subset(len(digits.train)).images) != rows(digits.train.images)


def test_a_class_that_is_used_up_leaves_the_places_to_the_others():
    labels = torch.tensor([0, 1, 1, 1, 1, 2, 2])
    order = dealt_order(labels)
    assert sorted(order.tolist()) == list(range(7))
    dealt = labels[order].tolist()
    assert sorted(dealt[:3]) == [0, 1, 2]
    assert sorted(dealt[3:5]) == [1, 2]
    assert dealt[5:] == [1, 1]


@pytest.mark.parametrize("n", [0, -1, 1260])
def test_subsets_that_cannot_be_are_refused(digits, n):
    with pytest.raises(ValueError, match=f"subset of {n}; this split has 1259, use 1 to 1259"):
        digits.train.subset(n)


# ---- stored as bytes or as images


def test_bytes_and_images_are_not_confused():
    pixels, labels = torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.zeros(2)
    scale = Normalisation((0.5,) * 3, (0.25,) * 3)
    assert float(Split(pixels, labels, scale).images.unique()) == -2.0
    for stored, normalisation in ((pixels, None), (pixels.float(), scale), (pixels[:1], scale)):
        with pytest.raises(ValueError, match=r"split: . images of torch"):
            Split(stored, labels, normalisation)


def test_one_number_serves_all_channels_and_one_each_its_own():
    pixels = torch.full((1, 3, 1, 1), 255, dtype=torch.uint8)
    assert Normalisation((0.5,), (0.5,)).images(pixels).flatten().tolist() == [1, 1, 1]
    own = Normalisation((0.0, 0.5, 1.0), (1.0, 0.25, 0.5))
    assert own.images(pixels).flatten().tolist() == [1, 2, 0]
    assert own.pixels(torch.tensor([3.0, -1.0, -1.0])[None, :, None, None]).flatten().tolist() == [
        1.0,  # 3 and beyond white is white
        0.25,
        0.5,
    ]
    assert own.background == (0.0, -2.0, -2.0)


@pytest.mark.parametrize(
    ("mean", "std"), [((), ()), ((0.5,), (0.0,)), ((0.5,), (-1.0,)), ((0.5, 0.5), (1.0,))]
)
def test_normalisations_that_cannot_be_are_refused(mean, std):
    with pytest.raises(ValueError, match="need one entry per channel, std above 0"):
        Normalisation(mean, std)


def test_the_digits_are_what_they_were(digits):
    """One number for the grey channel, images kept as floats, black where nothing is written."""
    assert digits.normalisation.mean == (pytest.approx(0.3054065),)
    assert digits.normalisation.std == (pytest.approx(0.3759358),)
    assert digits.train.stored.dtype == torch.float32
    assert digits.input_limit == float(digits.train.images.abs().max())
    assert digits.background[0] == pytest.approx(float(digits.train.images.min()))


def test_binary_digits_are_the_digits_above_half_ink():
    grey, binary = load_data("digits"), load_data("digits-binary")
    for which in ("train", "validation", "test"):
        pixels = getattr(binary, which).images
        ink = grey.normalisation.pixels(getattr(grey, which).images).float()
        assert torch.equal(getattr(binary, which).labels, getattr(grey, which).labels)
        assert set(pixels.unique().tolist()) == {0.0, 1.0}
        assert torch.equal(pixels.bool(), ink > ink.max() / 2)
