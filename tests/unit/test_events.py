"""Event data through Tonic's own classes: what is read, how it is split, kept, and refused."""

import socket
import sys

import numpy as np
import pytest
import torch
from fake_events import (
    nmnist_bytes,
    random_events,
    write_cifar10dvs,
    write_gesture,
    write_nmnist,
)

from hardware.files import write_bytes
from spikingmoe.data import event_frames, events, load_data
from spikingmoe.data.image_data import Normalisation, Split, model_input
from spikingmoe.train.loader import make_loader

pytest.importorskip("tonic")
STEPS = 4


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    def refuse(*_):
        raise AssertionError("something wants the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("SPIKINGMOE_DATA", str(tmp_path / "home"))


def load(name, root, size=48, steps=STEPS, **kwargs):
    return load_data(name, root, image_size=size, time_steps=steps, **kwargs)


def by_hand(recorded, sensor, size, steps=STEPS):
    """Frames of (x, y, p, ms) events, one event at a time."""
    pool = -(-sensor // size)
    side = -(-sensor // pool)
    offset = (size - side) // 2
    frames = np.zeros((steps, 2, size, size), np.int64)
    since = 1000 * (recorded[:, 3] - recorded[:, 3].min())
    for (x, y, p, _), t in zip(recorded, since, strict=True):
        frames[t * steps // (since.max() + 1), p, offset + y // pool, offset + x // pool] += 1
    return frames


def rows(split):
    return {
        row.numpy().tobytes(): int(label)
        for row, label in zip(split.stored, split.labels, strict=True)
    }


# ---- what is read


def test_nmnist_is_read_in_the_middle_of_the_frames(tmp_path):
    data = load("nmnist", write_nmnist(tmp_path))
    assert data.input_shape == (2, 48, 48)
    assert data.time_steps == STEPS
    assert (len(data.train), len(data.validation), len(data.test)) == (90, 10, 20)
    assert data.train.stored.dtype == torch.uint8
    assert data.validation.labels.bincount().tolist() == [1] * 10
    found = {**rows(data.train), **rows(data.validation)}
    limit = int(data.train.stored.max())
    for digit, k in ((0, 0), (3, 7), (9, 9)):
        expected = by_hand(random_events(100 * digit + k, 34), 34, 48).clip(max=limit)
        assert found[expected.astype(np.uint8).tobytes()] == digit
    expected = by_hand(random_events(450, 34), 34, 48).clip(max=limit).astype(np.uint8)
    assert rows(data.test)[expected.tobytes()] == 4
    assert data.test.labels.tolist() == [d for d in range(10) for _ in range(2)], "by their names"


@pytest.mark.parametrize("size", [48, 64])
def test_gestures_are_split_by_people(tmp_path, size):
    data = load("dvsgesture", write_gesture(tmp_path), size)
    assert data.input_shape == (2, size, size)
    assert len(data.classes) == 11
    found = [rows(split) for split in (data.train, data.validation, data.test)]
    limit = int(data.train.stored.max())
    for users, own in ((range(1, 3), found[0]), (range(3, 6), found[1]), ((24,), found[2])):
        assert len(own) == 11 * len(users)
        for user in users:
            for gesture in (0, 10):
                recorded = random_events(1000 * user + gesture, 128)
                expected = by_hand(recorded, 128, size).clip(max=limit).astype(np.uint8)
                assert own[expected.tobytes()] == gesture


def test_cifar10dvs_is_split_by_class_always_alike(tmp_path):
    pytest.importorskip("aedat")
    data = load("cifar10dvs", write_cifar10dvs(tmp_path), 64)
    assert data.test.labels.bincount().tolist() == [1] * 10
    assert data.validation.labels.bincount().tolist() == [1] * 10
    assert data.train.labels.bincount().tolist() == [8] * 10
    found = {**rows(data.train), **rows(data.validation), **rows(data.test)}
    assert len(found) == 100
    limit = int(data.train.stored.max())
    for label, k in ((0, 0), (5, 3), (9, 9)):
        expected = by_hand(random_events(100 * label + k, 128), 128, 64).clip(max=limit)
        assert found[expected.astype(np.uint8).tobytes()] == label
    (tmp_path / "cifar10dvs-4x64.frames").unlink()
    again = load("cifar10dvs", tmp_path, 64)
    assert again.test.stored.equal(data.test.stored)


def test_counts_are_scaled_and_nothing_stays_nothing(tmp_path):
    data = load("nmnist", write_nmnist(tmp_path))
    images = data.train.images
    assert images.dtype == torch.float32
    assert images.square().mean(dim=(0, 1, 3, 4)) == pytest.approx([1, 1], rel=1e-4)
    assert (images[data.train.stored == 0] == 0).all()
    assert data.background == (0.0, 0.0)
    assert data.input_limit == pytest.approx(float(images.max()))
    (frames, labels), *_ = make_loader(data.test, 6)
    assert frames.shape == (STEPS, 6, 2, 48, 48)
    assert frames.equal(model_input(data.test.images)[:, :6])
    assert labels.equal(data.test.labels[:6])


def test_pixels_that_fire_all_the_time_do_not_set_the_scale():
    frames = np.zeros((2, 1, 2, 64, 64), np.uint8)
    frames[0, 0, 0] = 1
    frames[0, 0, 1, :32] = 3
    frames[0, 0, 1, 63, 63] = 250
    frames[1] = 200  # not trained on
    assert events._saturation(frames, torch.tensor([0])) == 3
    frames[0, 0, 1, 60] = 200
    assert events._saturation(frames, torch.tensor([0])) == 200


def test_counts_are_cut_at_the_saturation(tmp_path):
    write_nmnist(tmp_path)
    hot = np.repeat(random_events(5, 34, n=1), 1000, axis=0)
    (tmp_path / "NMNIST" / "Test" / "0" / "00050.bin").write_bytes(nmnist_bytes(hot))
    data = load("nmnist", tmp_path)
    limit = int(data.train.stored.max())
    assert limit < 10
    assert int(data.test.stored.max()) == limit


def test_a_tenth_of_every_class_is_held_out_and_a_tenth_of_the_rest():
    labels = np.arange(1000, dtype=np.int16) % 10
    parts = events._splits(events.EVENT_SETS["cifar10dvs"], {"labels": labels})
    counts = [torch.from_numpy(labels[part.numpy()].astype(int)).bincount() for part in parts]
    assert [c.tolist() for c in counts] == [[10] * 10, [9] * 10, [81] * 10]
    assert torch.cat(parts).sort().values.equal(torch.arange(1000))


def test_sums_over_time_stop_at_what_a_byte_holds():
    scale = Normalisation((0.0,), (1.0,))
    split = Split(torch.full((1, 4, 1, 2, 2), 200, dtype=torch.uint8), torch.zeros(1), scale)
    assert split.in_steps(1).stored.unique().tolist() == [255]


def test_a_network_without_time_takes_the_sum(tmp_path):
    data = load("nmnist", write_nmnist(tmp_path))
    assert data.in_steps(STEPS) is data
    once = data.in_steps(1)
    assert once.time_steps == 1
    assert once.test.stored.equal(data.test.stored.sum(dim=1, keepdim=True).to(torch.uint8))
    assert once.test.images.allclose(data.test.images.sum(dim=1, keepdim=True) / 2, atol=1e-5)
    assert once.normalisation == once.train.normalisation
    with pytest.raises(ValueError, match="samples of 4 frames do not become 2; load the data with"):
        data.in_steps(2)


# ---- the frames that are kept


def test_the_second_start_reads_the_kept_frames(tmp_path, monkeypatch):
    titles = []

    def watch(title):
        titles.append(title)
        return events.unwatched(title)

    first = load("nmnist", write_nmnist(tmp_path), watch=watch)
    assert titles == ["counting the events of nmnist"]
    assert (tmp_path / "nmnist-4x34.frames").is_file()
    monkeypatch.setitem(sys.modules, "tonic", None)  # not even needed
    second = load("nmnist", tmp_path / "NMNIST", watch=watch)
    assert len(titles) == 1
    for part in ("train", "validation", "test"):
        assert getattr(first, part).stored.equal(getattr(second, part).stored)
        assert getattr(first, part).labels.equal(getattr(second, part).labels)
    larger = load("nmnist", tmp_path, 64)  # the same frames, padded further
    assert larger.train.stored[..., 8:56, 8:56].equal(first.train.stored)


def test_frames_are_counted_anew_for_other_recordings_steps_or_damage(tmp_path):
    write_nmnist(tmp_path)
    titles = []

    def counted():
        titles.clear()
        load(
            "nmnist", tmp_path, watch=lambda title: titles.append(title) or events.unwatched(title)
        )
        return len(titles)

    assert counted() == 1
    assert counted() == 0
    changed = tmp_path / "NMNIST" / "Train" / "0" / "00000.bin"
    changed.write_bytes(nmnist_bytes(random_events(7, 34, n=61)))
    assert counted() == 1
    assert counted() == 0
    kept = tmp_path / "nmnist-4x34.frames"
    content = bytearray(kept.read_bytes())
    content[-1] ^= 1
    write_bytes(kept, content)
    assert counted() == 1
    assert counted() == 0
    load("nmnist", tmp_path, steps=3)
    assert (tmp_path / "nmnist-3x34.frames").is_file()


def test_a_place_that_takes_no_file_keeps_frames_at_home(tmp_path, monkeypatch):
    write_nmnist(tmp_path)
    monkeypatch.setattr(events.os, "access", lambda path, mode: False)
    load("nmnist", tmp_path)
    assert not (tmp_path / "nmnist-4x34.frames").exists()
    assert (tmp_path / "home" / "nmnist-4x34.frames").is_file()


# ---- what is refused


def refused(match, *args, **kwargs):
    with pytest.raises(ValueError, match=match) as caught:
        load(*args, **kwargs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "lacks"),
    [
        ("nmnist", "NMNIST/Train, NMNIST/Test"),
        ("dvsgesture", "DVSGesture/ibmGestureTrain, DVSGesture/ibmGestureTest"),
        ("cifar10dvs", "CIFAR10DVS"),
    ],
)
def test_missing_recordings_name_the_command_that_gets_them(tmp_path, name, lacks):
    refused(
        f"lacks {lacks} of '{name}'; get the data with `spikingmoe download {name}", name, tmp_path
    )
    refused(f"home: lacks {lacks}", name, None)


def test_a_missing_package_names_the_command_that_installs_it(tmp_path, monkeypatch):
    write_nmnist(tmp_path)
    write_cifar10dvs(tmp_path)
    monkeypatch.setitem(sys.modules, "aedat", None)
    install = r"which is missing; install it with: pip install 'spikingmoe\[events\]'"
    refused(f"'cifar10dvs' is read by the package aedat, {install}", "cifar10dvs", tmp_path)
    monkeypatch.setitem(sys.modules, "tonic", None)
    refused(f"'nmnist' is read by the package tonic, {install}", "nmnist", tmp_path)


def test_damaged_recordings_are_named(tmp_path):
    write_nmnist(tmp_path)
    victim = tmp_path / "NMNIST" / "Test" / "5" / "00051.bin"
    whole = victim.read_bytes()
    broken = {
        "cut": (whole[:-2], "is no recording as published"),
        "empty": (b"", "holds no event"),
        "outside": (
            bytes([200]) + whole[1:],
            r"events with x in \d+\.\.200; the sensor has 0\.\.33",
        ),
    }
    for content, message in broken.values():
        victim.write_bytes(content)
        refused(
            f"00051.bin: is no recording.*{message}" if "is no" not in message else message,
            "nmnist",
            tmp_path,
        )
    victim.write_bytes(whole)
    load("nmnist", tmp_path)


def test_damaged_gestures_run_nothing(tmp_path):
    write_gesture(tmp_path)
    victim = tmp_path / "DVSGesture" / "ibmGestureTest" / "user24_led" / "3.npy"
    np.save(victim, np.array([print], dtype=object), allow_pickle=True)
    refused("3.npy: is no recording as published .*allow_pickle", "dvsgesture", tmp_path)


def test_a_class_without_recordings_is_named(tmp_path):
    write_nmnist(tmp_path)
    for path in (tmp_path / "NMNIST" / "Test" / "7").iterdir():
        path.unlink()
    refused("the test set lacks recordings of 7; remove the folder", "nmnist", tmp_path)


def test_frames_that_no_file_holds_are_refused_before_they_are_counted(tmp_path, monkeypatch):
    write_nmnist(tmp_path)
    monkeypatch.setattr(events, "MOST_BYTES", 1_000_000)
    monkeypatch.setattr(event_frames, "count_events", None)
    refused(
        r"'nmnist': 120 recordings of 4 frames of 34x34 are 0\.0 GB, .*; use fewer --time-steps",
        "nmnist",
        tmp_path,
    )
