"""Events to frames, by hand."""

import numpy as np
import pytest

from spikingmoe.data.event_frames import count_events, frame_side, pad_centre, pooling


def recording(*events):
    """Events (x, y, p, t)."""
    kind = [("x", np.int16), ("y", np.int16), ("p", bool), ("t", np.int64)]
    return np.array(list(events), dtype=kind)


def count(events, sensor=8, time_steps=2, image_size=8):
    return count_events(events, sensor=sensor, time_steps=time_steps, image_size=image_size)


def test_events_are_counted_by_time_polarity_row_and_column():
    frames = count(
        recording((1, 2, 0, 100), (1, 2, 0, 149), (1, 2, 1, 150), (7, 0, 1, 199), (0, 7, 0, 199))
    )
    assert frames.shape == (2, 2, 8, 8)
    assert frames.dtype == np.uint8
    expected = np.zeros((2, 2, 8, 8))
    expected[0, 0, 2, 1] = 2
    expected[1, 1, 2, 1] = 1
    expected[1, 1, 0, 7] = 1
    expected[1, 0, 7, 0] = 1
    assert np.array_equal(frames, expected)


@pytest.mark.parametrize("time_steps", [1, 3, 7, 16])
def test_bins_are_equally_long_and_hold_all_events(time_steps):
    times = np.arange(1000, 1000 + 7 * 48)
    frames = count(recording(*((0, 0, 0, t) for t in times)), time_steps=time_steps)
    totals = frames.sum(axis=(1, 2, 3))
    assert totals.max() - totals.min() <= 1 or time_steps == 1
    expected = min(255, 336) if time_steps == 1 else 336
    assert totals.sum() == expected


def test_all_events_at_once_are_one_frame():
    frames = count(recording((0, 0, 1, 5), (1, 1, 1, 5)), time_steps=4)
    assert frames[0].sum() == 2
    assert frames[1:].sum() == 0


def test_pixels_are_pooled_by_sums():
    events = recording(*((x, y, 1, 0) for x in range(8) for y in range(8)), (3, 0, 0, 1))
    frames = count(events, time_steps=1, image_size=4)
    assert (frames[0, 1] == 4).all()
    assert frames[0, 0].tolist() == [[0, 1, 0, 0], *[[0] * 4] * 3]
    odd = count(events, time_steps=1, image_size=3)  # 8 pixels by 3: 3, 3 and 2
    assert odd[0, 1].tolist() == [[9, 9, 6], [9, 9, 6], [6, 6, 4]]


def test_the_sensors_fit_the_presets():
    sizes = [(128, 64, 64, 2), (128, 48, 43, 3), (34, 48, 34, 1), (34, 64, 34, 1), (34, 32, 17, 2)]
    for sensor, image_size, side, pool in sizes:
        assert (frame_side(sensor, image_size), pooling(sensor, image_size)) == (side, pool)
        assert side <= image_size


def test_counts_stop_at_what_a_byte_holds():
    frames = count(recording(*((1, 1, 0, t) for t in range(400))), time_steps=1)
    assert frames.max() == 255


def test_padding_puts_frames_into_the_middle():
    frames = np.arange(1, 19, dtype=np.uint8).reshape(2, 1, 3, 3)
    padded = pad_centre(frames, 6)
    assert padded.shape == (2, 1, 6, 6)
    assert np.array_equal(padded[..., 1:4, 1:4], frames)
    assert padded.sum() == frames.sum()
    assert pad_centre(frames, 3) is frames


@pytest.mark.parametrize(
    ("events", "message"),
    [
        (recording(), "holds no event"),
        (recording((8, 0, 0, 0)), r"events with x in 8\.\.8; the sensor has 0\.\.7"),
        (recording((0, -1, 0, 0), (0, 3, 0, 0)), r"events with y in -1\.\.3"),
    ],
)
def test_events_of_another_sensor_are_refused(events, message):
    with pytest.raises(ValueError, match=message):
        count(events)
