"""Image files as a model's input: read, turned upright, cut to a square, resized."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

FORMATS = ("PNG", "JPEG", "WEBP")
#: More pixels are refused before any is decoded: a file of a few kilobytes can hold gigabytes.
MOST_PIXELS = 2**26
MODES = {1: "L", 3: "RGB"}


def read_image(path: str | Path, *, channels: int, size: int) -> Tensor:
    """An image file as uint8 pixels (channels, size, size).

    The largest square in its middle, resized (bicubic); a file that has that size is taken as it is.
    Turned as its EXIF orientation says; grey or colour as `channels` is 1 or 3; transparency is
    dropped; of 16-bit grey values the upper 8 bits are taken.

    Raises:
        ValueError: the file is missing, broken, of another format or too large, or `channels` is
            neither 1 nor 3.
    """
    if channels not in MODES:
        raise ValueError(
            f"{path}: the model takes {channels} channels, which no image file has; "
            f"use a model with 1 (grey) or 3 (colour)"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the limit is ours, and damage is told below
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
                if width * height > MOST_PIXELS:
                    raise Image.DecompressionBombError
                image.load()
                upright = _upper_eight_bits(ImageOps.exif_transpose(image))
                square = middle_square(upright, channels, size)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; give an image ({_formats()})") from None
    except UnidentifiedImageError:
        raise ValueError(f"{path}: is no image that can be read; use {_formats()}") from None
    except Image.DecompressionBombError:
        raise ValueError(
            f"{path}: has more than {MOST_PIXELS:,} pixels; scale it down first"
        ) from None
    except Exception as error:  # a damaged file can fail in any way, also in its EXIF data
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ValueError(f"{path}: is damaged or unreadable ({reason}); use another") from None
    pixels = np.asarray(square, dtype=np.uint8)
    return torch.from_numpy(pixels.copy()).reshape(size, size, channels).movedim(2, 0)


def middle_square(image: Image.Image, channels: int, size: int) -> Image.Image:
    """The largest square in the middle of an image, grey or colour, resized (bicubic, antialiased)."""
    return ImageOps.fit(image.convert(MODES[channels]), (size, size), Image.Resampling.BICUBIC)


def _upper_eight_bits(image: Image.Image) -> Image.Image:
    """Grey values of 16 bits, which Pillow would clip, as 8; other images as they are."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))


def _formats() -> str:
    return "png, jpg or webp"
