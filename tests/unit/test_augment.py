"""Augmentation of batches: what each part does, and that a sample's result depends on the sample alone."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from spikingmoe.config import TrainConfig
from spikingmoe.data import Normalisation
from spikingmoe.data.augment import augment, check_augmentation
from spikingmoe.data.augment.batch import COLUMN, MIRRORED, MIX, ROW
from spikingmoe.data.augment.mix import cut_shares
from spikingmoe.data.augment.random_numbers import Draws

NONE = TrainConfig(max_shift=0)
ALL = TrainConfig(
    max_shift=3,
    flip=True,
    rand_augment_ops=2,
    random_erasing=0.5,
    seed=3,
)
GREY = Normalisation((0.25,), (0.5,))
COLOUR = Normalisation((0.25, 0.5, 0.75), (0.5, 0.25, 0.125))


def photos(n, channels=3, side=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (n, channels, side, side)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def run(pixels, settings, normalisation, *, index=None, labels=None, epoch=0, classes=10):
    index = torch.arange(len(pixels)) if index is None else index
    labels = index % classes if labels is None else labels
    return augment(pixels, labels, index, settings, normalisation, classes, epoch=epoch)


# ---- shift and flip


def test_without_settings_images_are_only_normalised():
    pixels = photos(5)
    images, targets = run(pixels, NONE, COLOUR)
    assert images.equal(COLOUR.images(pixels))
    assert targets.tolist() == [0, 1, 2, 3, 4]
    stored = COLOUR.images(pixels)
    assert run(stored, NONE, COLOUR)[0].equal(stored)


def test_a_flip_mirrors_half_of_the_images_left_to_right():
    pixels = torch.arange(12, dtype=torch.uint8).view(1, 1, 3, 4).expand(64, 1, 3, 4)
    images, _ = run(pixels, replace(NONE, flip=True), Normalisation((0.0,), (1 / 255,)))
    images = images.round()
    mirrored = (images[:, 0, 0] == torch.tensor([3.0, 2, 1, 0])).all(dim=1)
    kept = (images[:, 0, 0] == torch.tensor([0.0, 1, 2, 3])).all(dim=1)
    assert (mirrored ^ kept).all()
    assert 16 <= int(mirrored.sum()) <= 48  # 4 standard deviations of a fair coin
    assert images[mirrored][:, 0, 2].unique(dim=0).tolist() == [[11, 10, 9, 8]]
    assert images[kept].equal(pixels[kept].float())


@pytest.mark.parametrize("stored", ["bytes", "floats"])
def test_a_shift_is_a_window_of_the_image_padded_with_black(stored):
    """Against padding and cutting out image by image; the draws are the documented ones."""
    pixels = photos(40, side=7)[..., :6, :]
    given = pixels if stored == "bytes" else COLOUR.images(pixels)
    settings = replace(NONE, max_shift=3, flip=True, seed=9)
    images, _ = run(given, settings, COLOUR, epoch=2)
    draws = Draws(9, 2, torch.arange(40), 3)
    rows, columns = draws.integer(ROW, 7).tolist(), draws.integer(COLUMN, 7).tolist()
    seen = set()
    for i, (row, column) in enumerate(zip(rows, columns, strict=True)):
        window = F.pad(pixels[i], (3, 3, 3, 3))[:, row : row + 6, column : column + 7]
        window = window.flip(-1) if draws.coin(MIRRORED)[i] else window
        assert images[i].equal(COLOUR.images(window))
        seen |= {row, column}
    assert seen == set(range(7)), "every shift up to 3 occurs"


def test_one_number_of_the_normalisation_serves_all_channels():
    stored = GREY.images(photos(8))
    images, _ = run(stored, replace(NONE, max_shift=2), GREY)
    black = float(GREY.images(torch.zeros(1, 1, 1)))
    assert (images == black).any(dim=(0, 2, 3)).all()


def test_all_frames_of_a_sample_move_alike():
    frames = torch.zeros(30, 4, 2, 8, 8, dtype=torch.uint8)
    frames[:, :, :, 3, 5] = torch.arange(1, 9, dtype=torch.uint8).view(4, 2)
    plain = Normalisation((0.0, 0.0), (1 / 255, 1 / 255))
    images, _ = run(frames, replace(NONE, max_shift=2, flip=True), plain)
    assert images.shape == frames.shape
    places = set()
    for sample in images.round():
        assert sample.sum(dim=(2, 3)).equal(torch.arange(1.0, 9).view(4, 2))
        where = (sample > 0).nonzero()[:, 2:].unique(dim=0)
        assert len(where) == 1, "one place for all frames and polarities"
        places.add(tuple(where[0].tolist()))
    assert len(places) > 10


# ---- nothing but the sample decides


@pytest.mark.parametrize("settings", [ALL, replace(ALL, mixup=0.5, cutmix=1.0, random_erasing=0)])
def test_a_sample_becomes_the_same_in_any_batch(settings):
    pixels, index = photos(24), torch.randperm(24, generator=torch.Generator().manual_seed(1))
    mixing = bool(settings.mixup)
    whole, targets = run(pixels[index], settings, COLOUR, index=index)
    again, _ = run(pixels[index], settings, COLOUR, index=index)
    assert again.equal(whole)
    part, part_targets = run(pixels[index[5:12]], settings, COLOUR, index=index[5:12])
    start = 1 if mixing else 0  # the first of a batch has another partner
    assert part[start:].allclose(whole[5 + start : 12], atol=1e-5)
    assert part_targets[start:].allclose(targets[5 + start : 12])
    for other in (
        run(pixels[index], settings, COLOUR, index=index, epoch=1),
        run(pixels[index], replace(settings, seed=4), COLOUR, index=index),
        run(pixels[index], settings, COLOUR, index=index + 24, labels=index % 10),
    ):
        assert not other[0].allclose(whole, atol=1e-3)


def test_the_parts_draw_apart():
    """Switching one part on does not change what another does to a sample."""
    pixels = photos(16)
    plain, _ = run(pixels, replace(NONE, max_shift=3, flip=True), COLOUR)
    erased, _ = run(pixels, replace(NONE, max_shift=3, flip=True, random_erasing=0.5), COLOUR)
    touched = (plain != erased).flatten(1).any(dim=1)
    assert 1 < int(touched.sum()) < 15
    assert erased[~touched].equal(plain[~touched])


# ---- erasing


def test_erasing_puts_noise_into_one_rectangle_of_some_images():
    pixels = torch.full((400, 3, 32, 32), 64, dtype=torch.uint8)
    images, _ = run(pixels, replace(NONE, random_erasing=0.25), COLOUR)
    changed = (images != COLOUR.images(pixels)).any(dim=1)
    erased = changed.flatten(1).any(dim=1)
    assert 65 <= int(erased.sum()) <= 135  # 4 standard deviations about 100
    shares, aspects = [], []
    for mask in changed[erased]:
        rows, columns = mask.any(dim=1).nonzero().flatten(), mask.any(dim=0).nonzero().flatten()
        tall = int(rows[-1] - rows[0]) + 1
        long = int(columns[-1] - columns[0]) + 1
        assert int(mask.sum()) == tall * long, "a filled rectangle"
        shares.append(tall * long / 1024)
        aspects.append(tall / long)
    assert min(shares) < 0.06
    assert 0.28 < max(shares) < 0.36
    assert min(aspects) < 0.6 < 1.7 < max(aspects)
    noise = images[erased].movedim(1, -1)[changed[erased]]
    assert float(noise.mean()) == pytest.approx(0, abs=0.05)
    assert float(noise.std()) == pytest.approx(1, abs=0.05)


# ---- mixing


def test_mixup_blends_each_image_and_label_with_the_one_before():
    pixels = photos(6)
    labels = torch.tensor([4, 0, 1, 1, 2, 3])
    images, targets = run(pixels, replace(NONE, mixup=0.8), COLOUR, labels=labels, classes=5)
    plain = COLOUR.images(pixels)
    shares = Draws(0, 0, torch.arange(6), MIX + 1).beta(MIX, 0.8)
    assert len(shares.unique()) == 6
    for i, share in enumerate(shares):
        assert images[i].allclose(share * plain[i] + (1 - share) * plain[i - 1], atol=1e-5)
        expected = torch.zeros(5)
        expected[labels[i]] += share
        expected[labels[i - 1]] += 1 - share
        assert targets[i].allclose(expected)
    assert targets.sum(dim=1).allclose(torch.ones(6))


def test_cutmix_pastes_a_rectangle_and_shares_the_label_by_its_area():
    pixels = torch.arange(1, 41, dtype=torch.uint8).view(40, 1, 1, 1).expand(40, 1, 16, 16)
    plain = Normalisation((0.0,), (1 / 255,))
    images, targets = run(pixels, replace(NONE, cutmix=1.0), plain, classes=40)
    shares = []
    for i, image in enumerate(images.round()[:, 0]):
        own, other = float(i + 1), float(40 if i == 0 else i)
        assert set(image.unique().tolist()) <= {own, other}
        share = float((image == own).float().mean())
        assert float(targets[i, i]) == pytest.approx(share)
        assert float(targets[i, i - 1]) == pytest.approx(1 - share)
        cut = image == other
        tall, long = int(cut.any(dim=1).sum()), int(cut.any(dim=0).sum())
        assert int(cut.sum()) == tall * long
        shares.append(share)
    assert min(shares) < 0.35
    assert max(shares) > 0.9


def test_a_cut_has_the_drawn_area_where_it_lies_inside():
    index = torch.arange(3000)
    draws = Draws(0, 0, index, 3)
    cut = cut_shares(draws, 0, 1.0, 20, 30) == 0
    drawn = 1 - draws.beta(0, 1.0)
    rows, columns = draws.integer(1, 20), draws.integer(2, 30)
    for i in range(3000):
        tall, long = int(drawn[i].sqrt() * 20), int(drawn[i].sqrt() * 30)
        top, left = int(rows[i]) - tall // 2, int(columns[i]) - long // 2
        expected = torch.zeros(20, 30, dtype=torch.bool)
        expected[max(0, top) : max(0, top + tall), max(0, left) : max(0, left + long)] = True
        assert cut[i].equal(expected)


def test_with_both_each_image_takes_one_of_them():
    pixels = torch.zeros(200, 1, 16, 16, dtype=torch.uint8)
    pixels[::2] = 255
    plain = Normalisation((0.0,), (1.0,))
    images, targets = run(pixels, replace(NONE, mixup=1.0, cutmix=1.0), plain)
    pasted = ((images == 0) | (images == 1)).flatten(1).all(dim=1)
    assert 70 <= int(pasted.sum()) <= 130
    flat = images[~pasted].flatten(1)
    assert (flat.amax(dim=1) - flat.amin(dim=1)).max() < 1e-6
    kept = targets.gather(1, (torch.arange(200) % 10)[:, None])[:, 0]
    for some in (kept[pasted], kept[~pasted]):  # the choice says nothing of the share
        assert float(some.min()) < 0.4 < 0.8 < float(some.max())


def test_images_are_mixed_in_the_first_epochs_only_if_asked():
    pixels = photos(4)
    settings = replace(NONE, mixup=0.5, mix_epochs=2)
    for epoch in range(4):
        targets = run(pixels, settings, COLOUR, epoch=epoch)[1]
        assert targets.is_floating_point() == (epoch < 2)
    assert run(pixels, replace(settings, mix_epochs=0), COLOUR, epoch=99)[1].ndim == 2


# ---- what is refused


@pytest.mark.parametrize(
    ("field", "value"),
    [("rand_augment_ops", 1), ("random_erasing", 0.25), ("mixup", 0.5), ("cutmix", 1.0)],
)
def test_what_acts_on_colours_is_refused_on_events_by_name(field, value):
    frames = torch.zeros(2, 4, 2, 8, 8, dtype=torch.uint8)
    settings = replace(NONE, **{field: value})
    with pytest.raises(ValueError, match=f"{field}={value} acts on the colours of images"):
        run(frames, settings, Normalisation((0.0,), (1.0,)))
    with pytest.raises(ValueError, match=r"use 0 \(max_shift and flip work on events\)"):
        check_augmentation(settings, channels=2, is_events=True)
    check_augmentation(settings, channels=3, is_events=False)


def test_rand_augment_needs_colours():
    with pytest.raises(ValueError, match=r"needs grey or colour images \(1 or 3 channels\), got 2"):
        run(photos(2, channels=2), replace(NONE, rand_augment_ops=1), GREY)
