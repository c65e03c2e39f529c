"""A folder of images of one's own: what becomes a class, a part, a pixel, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from spikingmoe.data import load_data


def picture(seed, size=(16, 16), mode="RGB"):
    shape = (size[1], size[0], 3) if mode == "RGB" else (size[1], size[0])
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return Image.fromarray(pixels)


def write(root, counts, first=0, **kwargs):
    """root/CLASS/K.png for each class and so many K; picture K of class i has the seed 1000 i + K."""
    for i, (name, count) in enumerate(sorted(counts.items())):
        (root / name).mkdir(parents=True, exist_ok=True)
        for k in range(first, first + count):
            picture(1000 * i + k, **kwargs).save(root / name / f"{k:03d}.png")
    return root


def load(root, size=16, channels=3):
    return load_data("folder", root, image_size=size, channels=channels)


def seeds(split, classes=2, count=60, **kwargs):
    """The seeds of the pictures of a split, in its order; their classes are its labels."""
    known = {}
    for seed in (1000 * i + k for i in range(classes) for k in range(count)):
        known[np.asarray(picture(seed, **kwargs)).tobytes()] = seed
    found = [known[image.movedim(0, -1).numpy().tobytes()] for image in split.stored]
    assert [seed // 1000 for seed in found] == split.labels.tolist()
    return found


def test_classes_are_folders_and_pixels_are_kept(tmp_path):
    write(tmp_path / "train", {"cat": 20, "ape": 30})
    (tmp_path / "train" / ".hidden").mkdir()
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no image")
    data = load(tmp_path)
    assert data.classes == ("ape", "cat")
    assert data.input_shape == (3, 16, 16)
    parts = [seeds(split) for split in (data.train, data.validation, data.test)]
    assert [len(part) for part in parts] == [40, 5, 5]
    assert sorted(seed for part in parts for seed in part) == [*range(30), *range(1000, 1020)]
    assert data.test.labels.bincount().tolist() == [3, 2]
    again = load(tmp_path)
    assert [seeds(s) for s in (again.train, again.validation, again.test)] == parts
    assert data.train.images.mean(dim=(0, 2, 3)) == pytest.approx([0, 0, 0], abs=1e-4)


def test_parts_that_are_there_are_taken(tmp_path):
    write(tmp_path / "train", {"a": 10, "b": 10})
    write(tmp_path / "test", {"a": 2, "b": 3}, first=20)
    data = load(tmp_path)
    assert seeds(data.test) == [20, 21, 1020, 1021, 1022]
    assert sorted(seeds(data.train) + seeds(data.validation)) == [*range(10), *range(1000, 1010)]
    write(tmp_path / "validation", {"a": 1, "b": 1}, first=40)
    data = load(tmp_path)
    assert seeds(data.validation) == [40, 1040]
    assert seeds(data.train) == [*range(10), *range(1000, 1010)]


def test_images_are_cut_square_in_the_middle_and_resized_without_aliasing(tmp_path):
    write(tmp_path / "train", {"a": 5, "b": 5})
    write(tmp_path / "validation", {"a": 1, "b": 1})
    wide = np.full((40, 120, 3), 255, np.uint8)
    wide[:, 40:80] = 0
    wide[::2, 40:80] = 200  # stripes finer than the result can show
    for name in ("a", "b"):
        (tmp_path / "test" / name).mkdir(parents=True)
        Image.fromarray(wide).save(tmp_path / "test" / name / "wide.PNG")
    test = load(tmp_path, size=8).test.stored
    assert test.shape == (2, 3, 8, 8)
    inside = test[:, :, 1:-1, 1:-1].float()
    assert inside.min() > 85, "the stripes are averaged"
    assert inside.max() < 115


def test_colour_and_grey_are_what_the_model_takes(tmp_path):
    write(tmp_path / "train", {"a": 10, "b": 10})
    picture(7, mode="L").save(tmp_path / "train" / "a" / "grey.jpeg")
    picture(8).convert("RGBA").save(tmp_path / "train" / "b" / "seen_through.png")
    picture(9).quantize(16).save(tmp_path / "train" / "b" / "palette.png")
    grey = load(tmp_path, channels=1)
    assert grey.input_shape == (1, 16, 16)
    found = {image.numpy().tobytes() for image in grey.train.stored}
    expected = [np.asarray(picture(k).convert("L")).tobytes() for k in range(10)]
    assert sum(e in found for e in expected) >= 7
    assert load(tmp_path).input_shape == (3, 16, 16)


def test_a_camera_that_was_turned_is_turned_back(tmp_path):
    write(tmp_path / "train", {"a": 5, "b": 5})
    write(tmp_path / "validation", {"a": 1, "b": 1})
    half = np.zeros((16, 16, 3), np.uint8)
    half[:8] = 255
    for name in ("a", "b"):
        (tmp_path / "test" / name).mkdir(parents=True)
        exif = Image.Exif()
        exif[0x0112] = 6  # "turn by 90 degrees clockwise to see it upright"
        Image.fromarray(half).save(tmp_path / "test" / name / "x.jpg", exif=exif, quality=95)
    image = load(tmp_path).test.stored[0, 0]
    assert (image[:, 9:] > 200).all()
    assert (image[:, :7] < 50).all()


# ---- what is refused


def refused(match, *args, **kwargs):
    with pytest.raises(ValueError, match=match) as caught:
        load(*args, **kwargs)
    assert "\n" not in str(caught.value)


def test_broken_images_are_named(tmp_path):
    write(tmp_path / "train", {"a": 10, "b": 10})
    victim = tmp_path / "train" / "a" / "003.png"
    whole = victim.read_bytes()
    for content in (b"", b"GIF89a", whole[: len(whole) // 2], b"not an image"):
        victim.write_bytes(content)
        refused(r"a/003.png: is (no image that can be read|damaged or unreadable)", tmp_path)


def test_folders_that_are_no_data_set_say_what_they_lack(tmp_path):
    refused("has no folder 'train'; needs train/CLASS", tmp_path)
    (tmp_path / "train").mkdir()
    refused(r"train: has classes \(none\); needs a folder for each of at least two", tmp_path)
    write(tmp_path / "train", {"a": 10})
    refused(r"train: has classes \(a\)", tmp_path)
    (tmp_path / "train" / "b").mkdir()
    refused("train/b: holds no image; put files into it that end in .png, .jpg", tmp_path)
    write(tmp_path / "train", {"a": 10, "b": 6})
    load(tmp_path)
    write(tmp_path / "test", {"a": 1, "c": 1})
    refused("test/c: class 'c' has no training images; add train/c/", tmp_path)
    (tmp_path / "test" / "c" / "000.png").unlink()
    (tmp_path / "test" / "c").rmdir()
    refused("test: has no folder 'b', which is a class of the training images", tmp_path)


def test_too_few_images_to_take_some_away_are_refused(tmp_path):
    write(tmp_path / "train", {"a": 4, "b": 4})
    refused("too few images of 'a' to take a tenth of every class for validation", tmp_path)
    for part in ("validation", "test"):
        write(tmp_path / part, {"a": 1, "b": 1})
    assert len(load(tmp_path).train) == 8


def test_a_class_too_small_to_be_tested_is_refused(tmp_path):
    write(tmp_path / "train", {"a": 100, "b": 5})
    refused("too few images of 'b' .*at least 6 of each", tmp_path)
    write(tmp_path / "train", {"b": 1}, first=5)
    assert len(load(tmp_path).train) == 106 - 2 * 11


def test_only_grey_and_colour_can_be_made(tmp_path):
    refused("images have 1 or 3 channels, the model takes 2", tmp_path, channels=2)


def test_files_are_taken_by_name(tmp_path):
    """Files are taken by name, whatever order the file system lists them in."""
    write(tmp_path / "train", {"b": 10, "a": 10})
    write(tmp_path / "test", {"a": 2, "b": 2})
    write(tmp_path / "validation", {"a": 2, "b": 2})
    data = load(tmp_path)
    assert seeds(data.train) == [*range(10), *range(1000, 1010)]
    assert data.train.labels.dtype == torch.int64
