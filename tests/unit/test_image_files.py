"""Image files as input: what is taken, what it becomes, and what is refused by name."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from spikingmoe.data.image_files import MOST_PIXELS, read_image


def noise(height, width, channels=3, seed=0):
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def saved(folder, array, name="x.png", **options):
    Image.fromarray(array).save(folder / name, **options)
    return folder / name


@pytest.mark.parametrize("name", ["x.png", "x.webp"])
def test_a_file_of_the_right_size_is_taken_as_it_is(tmp_path, name):
    array = noise(32, 32)
    path = saved(tmp_path, array, name, lossless=True)
    pixels = read_image(path, channels=3, size=32)
    assert pixels.shape == (3, 32, 32)
    assert (pixels.numpy() == array.transpose(2, 0, 1)).all()


def test_grey_models_take_colour_files_and_the_other_way_round(tmp_path):
    array = noise(8, 8)
    grey = read_image(saved(tmp_path, array), channels=1, size=8)
    luma = array @ np.array([0.299, 0.587, 0.114])  # ITU-R 601, as Pillow documents
    assert np.abs(grey.numpy()[0] - luma).max() <= 1
    colour = read_image(saved(tmp_path, noise(8, 8, 1)), channels=3, size=8)
    assert (colour[0] == colour[1]).all()
    assert (colour[0] == colour[2]).all()


def test_the_middle_square_is_resized(tmp_path):
    array = np.zeros((40, 100), np.uint8)
    array[:, 30:70] = 200  # the middle square
    pixels = read_image(saved(tmp_path, array), channels=1, size=8)
    assert pixels.shape == (1, 8, 8)
    assert (pixels[:, :, 2:-2] == 200).all()
    assert (pixels[:, :, [0, 1, -2, -1]] > 150).all()  # antialiased with what is beside the square


def test_jpeg_is_turned_upright(tmp_path):
    array = np.zeros((16, 16), np.uint8)
    array[:8] = 255  # bright above
    image, exif = Image.fromarray(array), Image.Exif()
    exif[0x0112] = 3  # upside down
    image.save(tmp_path / "x.jpg", exif=exif)
    pixels = read_image(tmp_path / "x.jpg", channels=1, size=16)[0].float()
    assert pixels[:8].mean() < 20
    assert pixels[8:].mean() > 235


def test_sixteen_bits_keep_the_upper_eight(tmp_path):
    values = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1024
    pixels = read_image(saved(tmp_path, values), channels=1, size=8)
    assert (pixels[0].numpy() == values // 256).all()


def test_palettes_and_transparency(tmp_path):
    array = noise(8, 8, 4)
    pixels = read_image(saved(tmp_path, array), channels=3, size=8)
    assert (pixels.numpy() == array[:, :, :3].transpose(2, 0, 1)).all()
    Image.fromarray(noise(8, 8)).quantize(4).save(tmp_path / "p.png")
    assert read_image(tmp_path / "p.png", channels=3, size=8).shape == (3, 8, 8)


def png_of(width, height):
    """A PNG that says it is so large and holds next to nothing."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100))
    return b"\x89PNG\r\n\x1a\n" + content + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8_193, 11_000, 60_000])
def test_decompression_bombs_are_refused_before_they_are_decoded(tmp_path, side, recwarn):
    """Above our limit, above Pillow's warning and above Pillow's error alike."""
    path = tmp_path / "bomb.png"
    path.write_bytes(png_of(side, side))
    with pytest.raises(ValueError, match=rf"bomb\.png: has more than {MOST_PIXELS:,} pixels"):
        read_image(path, channels=1, size=8)
    assert not recwarn.list


@pytest.mark.parametrize("keep", [0.3, 0.9])
@pytest.mark.parametrize("name", ["x.png", "x.jpg", "x.webp"])
def test_files_that_were_cut_short(tmp_path, name, keep):
    path = saved(tmp_path, noise(64, 64), name)
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    with pytest.raises(ValueError, match=rf"{name}: is (damaged or unreadable|no image)") as error:
        read_image(path, channels=3, size=8)
    assert "\n" not in str(error.value)


def test_what_is_no_image(tmp_path):
    (tmp_path / "x.png").write_text("hello")
    (tmp_path / "empty.png").write_bytes(b"")
    Image.fromarray(noise(8, 8)).save(tmp_path / "x.gif")
    for name in ("x.png", "empty.png", "x.gif"):
        with pytest.raises(
            ValueError, match=rf"{name}: is no image that can be read; use png, jpg"
        ):
            read_image(tmp_path / name, channels=3, size=8)
    with pytest.raises(ValueError, match=r"none\.png: no such file"):
        read_image(tmp_path / "none.png", channels=3, size=8)
    with pytest.raises(ValueError, match="is damaged or unreadable"):
        read_image(tmp_path, channels=3, size=8)


@pytest.mark.parametrize("error", [struct.error("too short"), TypeError("abs"), KeyError(5)])
def test_damaged_exif_data_are_said_to_be(tmp_path, monkeypatch, error):
    """Pillow passes on whatever its parser of EXIF data stumbles over."""

    def stumble(_image):
        raise error

    monkeypatch.setattr(ImageOps, "exif_transpose", stumble)
    path = saved(tmp_path, noise(16, 16))
    with pytest.raises(ValueError, match=r"x\.png: is damaged or unreadable"):
        read_image(path, channels=3, size=16)


def test_event_models_take_no_files(tmp_path):
    path = saved(tmp_path, noise(8, 8))
    with pytest.raises(ValueError, match="takes 2 channels, which no image file has; use a model"):
        read_image(path, channels=2, size=8)
