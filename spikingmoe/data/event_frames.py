"""From events to frames: counts of spikes per bin of time, polarity and pixel."""

from __future__ import annotations

import numpy as np

POLARITIES = 2
MOST = 255  # counts are kept as bytes


def frame_side(sensor: int, image_size: int) -> int:
    """Side of the frames of a sensor before they are padded to `image_size`.

    Pixels are pooled by the smallest whole number that makes the sensor fit: 128 -> 64 by 2, 128 -> 43
    (in 48) by 3, 34 -> 34 (in 48) by 1.
    """
    return -(-sensor // pooling(sensor, image_size))


def pooling(sensor: int, image_size: int) -> int:
    """How many pixels of a sensor make one of the frame, in each direction."""
    return -(-sensor // image_size)


def count_events(
    events: np.ndarray, *, sensor: int, time_steps: int, image_size: int
) -> np.ndarray:
    """Frames of one recording: uint8 (T, 2, side, side), counts above 255 are 255.

    Bin k of T holds the events with k <= T (t - first) / (last - first + 1) < k + 1, so all bins are equally
    long, from the first event to the last.

    Args:
        events: structured array with t (in any unit), x, y and p (0 or 1).
        sensor: its side in pixels.

    Raises:
        ValueError: no events, or events that the sensor cannot have sent.
    """
    if not len(events):
        raise ValueError("holds no event")
    x, y, p, t = (events[name].astype(np.int64) for name in ("x", "y", "p", "t"))
    for name, values, below in (("x", x, sensor), ("y", y, sensor), ("p", p, POLARITIES)):
        if values.min() < 0 or values.max() >= below:
            raise ValueError(
                f"has events with {name} in {values.min()}..{values.max()}; the sensor has 0..{below - 1}"
            )
    since = t - t.min()
    bins = since * time_steps // (since.max() + 1)
    side, pool = frame_side(sensor, image_size), pooling(sensor, image_size)
    place = ((bins * POLARITIES + p) * side + y // pool) * side + x // pool
    counts = np.bincount(place, minlength=time_steps * POLARITIES * side * side)
    frames = np.minimum(counts, MOST).astype(np.uint8)
    return frames.reshape(time_steps, POLARITIES, side, side)


def pad_centre(frames: np.ndarray, image_size: int) -> np.ndarray:
    """Frames (..., side, side) in the middle of larger ones (..., image_size, image_size), else zeros."""
    side = frames.shape[-1]
    if side == image_size:
        return frames
    start = (image_size - side) // 2
    padded = np.zeros((*frames.shape[:-2], image_size, image_size), frames.dtype)
    padded[..., start : start + side, start : start + side] = frames
    return padded
