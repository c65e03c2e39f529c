"""RandAugment's operations against Pillow's, and what is drawn."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from spikingmoe.data.augment import geometry
from spikingmoe.data.augment.colour import OPERATIONS
from spikingmoe.data.augment.rand_augment import (
    ALL,
    DRAWS,
    apply,
    geometric,
    rand_augment,
    strength,
)
from spikingmoe.data.augment.random_numbers import Draws

FILL = (10, 200, 77)
SIDE = 20


def smooth_photo(seed, contrast=1.0):
    """(20, 24, 3) bytes without single-pixel detail, so that interpolation is the same to a step."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(small).resize((24, SIDE), Image.Resampling.BICUBIC))
    return (128 + contrast * (image.astype(float) - 128)).astype(np.uint8)


PHOTOS = [
    *(smooth_photo(seed) for seed in range(4)),
    smooth_photo(9, 0.2),
    np.full((SIDE, 24, 3), 37, np.uint8),
    np.random.default_rng(0).integers(0, 256, (SIDE, 24, 3), dtype=np.uint8),
]


def batch(photos):
    return torch.from_numpy(np.stack(photos)).movedim(-1, 1).float()


def enhance(kind):
    return lambda image, factor: kind(image).enhance(factor)


def pillow_solarize_add(image, amount):
    table = [min(255, i + int(amount)) if i < 128 else i for i in range(256)]
    return image.point(table * len(image.getbands()))


PILLOW = {
    "auto_contrast": lambda image, _: ImageOps.autocontrast(image),
    "equalize": lambda image, _: ImageOps.equalize(image),
    "invert": lambda image, _: ImageOps.invert(image),
    "posterize": lambda image, bits: ImageOps.posterize(image, int(bits)),
    "solarize": lambda image, threshold: ImageOps.solarize(image, int(threshold)),
    "solarize_add": pillow_solarize_add,
    "color": enhance(ImageEnhance.Color),
    "contrast": enhance(ImageEnhance.Contrast),
    "brightness": enhance(ImageEnhance.Brightness),
    "sharpness": enhance(ImageEnhance.Sharpness),
}
AMOUNTS = {
    "posterize": (1, 2, 4),
    "solarize": (0, 26, 128, 256),
    "solarize_add": (0, 99, 110),
}
EXACT = ("invert", "posterize", "solarize", "solarize_add", "equalize")


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_operations_on_values_are_those_of_pillow(name, mode):
    images = [Image.fromarray(photo).convert(mode) for photo in PHOTOS]
    ours = batch([np.asarray(image).reshape(SIDE, 24, -1) for image in images])
    changed_some = False
    for amount in AMOUNTS.get(name, (0.1, 0.6, 1.0, 1.9)):
        theirs = batch(
            [np.asarray(PILLOW[name](image, amount)).reshape(SIDE, 24, -1) for image in images]
        )
        result = OPERATIONS[name](ours.clone(), torch.full((len(images),), float(amount)))
        most = (result - theirs).abs().amax(dim=(1, 2, 3))
        assert float(most.max()) <= (0 if name in EXACT else 1), (amount, most)
        assert result.equal(result.round())
        assert 0 <= float(result.min()) <= float(result.max()) <= 255
        changed_some |= not result.equal(ours)
    assert changed_some or (name, mode) == ("color", "L")


def pillow_geometry(name, image, amount):
    width, height = image.size
    matrix = {
        "shear_x": (1, amount, 0, 0, 1, 0),
        "shear_y": (1, 0, 0, amount, 1, 0),
        "translate_x": (1, 0, amount * width, 0, 1, 0),
        "translate_y": (1, 0, 0, 0, 1, amount * height),
    }
    bilinear = Image.Resampling.BILINEAR
    if name == "rotate":
        return image.rotate(amount, bilinear, fillcolor=FILL)
    affine = Image.Transform.AFFINE
    return image.transform(image.size, affine, matrix[name], bilinear, fillcolor=FILL)


@pytest.mark.parametrize("name", geometry.NAMES)
@pytest.mark.parametrize("share", [-1.0, -0.37, 0.2, 0.9])
def test_geometry_is_that_of_pillow(name, share):
    kind = torch.full((4,), geometry.NAMES.index(name))
    amount = geometric(kind, torch.full((4,), abs(share)), torch.full((4,), np.sign(share)))
    matrix = geometry.matrices(kind, amount, SIDE, 24)
    ours = geometry.transform(batch(PHOTOS[:4]), matrix, torch.tensor(FILL).float())
    theirs = batch(
        [
            np.asarray(pillow_geometry(name, Image.fromarray(photo), float(amount[0])))
            for photo in PHOTOS[:4]
        ]
    )
    difference = (ours - theirs).abs().amax(dim=1)
    # a pixel exactly on the rim may fall to either side of it
    assert float((difference > 1.01).float().mean()) < 0.005
    filled = (ours == torch.tensor(FILL).float()[:, None, None]).all(dim=1)
    assert filled.any()
    assert not filled.all()


def test_strengths_grow_with_the_magnitude():
    weak, strong = torch.tensor([0.0]), torch.tensor([1.0])
    plus, minus = torch.tensor([1.0]), torch.tensor([-1.0])
    assert [float(strength("posterize", x, plus)) for x in (weak, strong)] == [4, 0]
    assert [float(strength("solarize", x, plus)) for x in (weak, strong)] == [256, 0]
    assert [float(strength("solarize_add", x, plus)) for x in (weak, strong)] == [0, 110]
    assert float(strength("color", weak, plus)) == 1
    assert float(strength("color", strong, plus)) == pytest.approx(1.9)
    assert float(strength("color", strong, minus)) == pytest.approx(0.1)
    kinds = torch.arange(5)
    ends = geometric(kinds, torch.ones(5), torch.tensor([1.0, -1, 1, -1, 1]))
    assert ends.tolist() == pytest.approx([0.3, -0.3, 0.45, -0.45, 30])


def test_images_get_the_operation_that_was_drawn_for_them():
    """Every operation in one batch, each image as if it were alone; the others untouched."""
    images = batch([PHOTOS[i % 4] for i in range(2 * len(ALL))])
    which = torch.arange(2 * len(ALL)) % len(ALL)
    applied = torch.arange(2 * len(ALL)) < len(ALL)
    level = torch.full((len(images),), 0.9)
    sign, fill = torch.ones(len(images)), torch.tensor(FILL).float()
    together = apply(images, which, applied, level, sign, fill)
    for i in range(len(ALL)):
        one = slice(i, i + 1)
        alone = apply(images[one], which[one], applied[one], level[one], sign[one], fill)
        assert together[one].allclose(alone, atol=1)
        assert not together[i].equal(images[i]), ALL[i]
    assert together[len(ALL) :].equal(images[len(ALL) :])


def test_all_operations_are_drawn_equally_often_and_half_are_applied():
    """15 operations of equal chance, each done half the time, of a magnitude about the mean."""
    draws = Draws(0, 0, torch.arange(30_000), DRAWS)
    counts = draws.integer(0, len(ALL)).bincount(minlength=15)
    assert len(ALL) == 15
    assert int(counts.min()) > 1800
    assert int(counts.max()) < 2200
    images = torch.full((3000, 1, 4, 4), 100.0)
    images[..., 2:, :] = 180
    draws = Draws(0, 0, torch.arange(3000), DRAWS)
    result = rand_augment(
        images, draws, 0, operations=1, magnitude=9.0, spread=0.4, fill=torch.tensor([0.0])
    )
    kept = (result == images).flatten(1).all(dim=1)
    # besides those not drawn: color keeps grey images, equalize and sharpness small ones nearly
    assert 0.5 < float(kept.float().mean()) < 0.66
    none = rand_augment(
        images, draws, 0, operations=0, magnitude=9.0, spread=0.4, fill=torch.tensor([0.0])
    )
    assert none is images


def test_equalize_rounds_as_pillow_on_larger_images():
    """With several pixels per step, where it matters that half a step is added."""
    photo = np.asarray(Image.fromarray(PHOTOS[0]).resize((64, 48)))
    theirs = batch([np.asarray(ImageOps.equalize(Image.fromarray(photo)))])
    assert OPERATIONS["equalize"](batch([photo]), torch.zeros(1)).equal(theirs)
