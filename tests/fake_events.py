"""Small folders of recordings in the formats of N-MNIST, DVS Gesture and CIFAR10-DVS, as Tonic reads them."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer")
CIFAR10 += ("dog", "frog", "horse", "ship", "truck")
OUTPUTS = """<dv version="2.0"><node name="outInfo" path="/mainloop/Recorder/outInfo/">
<attr key="compression" type="string">NONE</attr><node name="0" path="/mainloop/Recorder/outInfo/0/">
<attr key="compression" type="string">NONE</attr><attr key="originalModuleName" type="string">c</attr>
<attr key="originalOutputName" type="string">events</attr>
<attr key="typeDescription" type="string">Array of events (polarity ON/OFF).</attr>
<attr key="typeIdentifier" type="string">EVTS</attr><node name="info" path="/mainloop/Recorder/outInfo/0/info/">
<attr key="sizeX" type="int">128</attr><attr key="sizeY" type="int">128</attr>
<attr key="source" type="string">camera</attr></node></node></node></dv>"""


def random_events(seed: int, sensor: int, n: int = 60) -> np.ndarray:
    """(n, 4) of x, y, polarity and time in ms, in the order of time."""
    generator = np.random.default_rng(seed)
    events = generator.integers(0, (sensor, sensor, 2, 300), (n, 4))
    return events[np.argsort(events[:, 3], kind="stable")]


def nmnist_bytes(events: np.ndarray) -> bytes:
    """Five bytes per event: x, y, polarity in the top bit of 23 bits of microseconds."""
    content = bytearray()
    for x, y, polarity, ms in events.tolist():
        content += bytes([x, y]) + ((polarity << 23) | (1000 * ms)).to_bytes(3, "big")
    return bytes(content)


def aedat4_bytes(*packets: np.ndarray) -> bytes:
    """AEDAT 4.0 without compression: a header and packets as size-prefixed flatbuffers."""
    text = OUTPUTS.encode() + b"\0"
    # table at 24: the text's offset, no table of contents (-1), compression 0; its vtable at 8
    header = struct.pack("<I4sHHHHH6x", 24, b"IOHE", 10, 20, 16, 8, 4)
    header += struct.pack("<iIqi", 16, 16, -1, 0) + struct.pack("<I", len(text) - 1) + text
    content = b"#!AER-DAT4.0\r\n" + struct.pack("<I", len(header)) + header
    for events in packets:
        # table at 16: the offset of a vector of structs; its vtable at 8
        packet = struct.pack("<I4sHHH2x", 16, b"EVTS", 6, 8, 4)
        packet += struct.pack("<iI4xI", 8, 8, len(events))
        for x, y, polarity, ms in events.tolist():
            packet += struct.pack("<qhhB3x", 1000 * ms, x, y, polarity)
        packet = struct.pack("<I", len(packet)) + packet
        content += struct.pack("<ii", 0, len(packet)) + packet
    return content


def write_nmnist(root: Path, per_class: int = 10) -> Path:
    """NMNIST/Train and Test; the recording number k of digit d has the events of seed 100 d + k."""
    for part, first, count in (("Train", 0, per_class), ("Test", 50, per_class // 5)):
        for digit in range(10):
            folder = root / "NMNIST" / part / str(digit)
            folder.mkdir(parents=True)
            for k in range(first, first + count):
                events = random_events(100 * digit + k, 34)
                (folder / f"{k:05d}.bin").write_bytes(nmnist_bytes(events))
    return root


def write_gesture(root: Path) -> Path:
    """DVSGesture of users 1 to 5 (training) and 24 (test), one recording of each of 11 gestures."""
    for part, users in (("Train", range(1, 6)), ("Test", (24,))):
        for user in users:
            folder = root / "DVSGesture" / f"ibmGesture{part}" / f"user{user:02d}_led"
            folder.mkdir(parents=True)
            for gesture in range(11):
                events = random_events(1000 * user + gesture, 128)
                np.save(folder / f"{gesture}.npy", events.astype(np.int64))
    return root


def write_cifar10dvs(root: Path, per_class: int = 10) -> Path:
    """CIFAR10DVS, recordings of two packets."""
    for label, name in enumerate(CIFAR10):
        folder = root / "CIFAR10DVS" / name
        folder.mkdir(parents=True)
        for k in range(per_class):
            events = random_events(100 * label + k, 128)
            content = aedat4_bytes(events[:25], events[25:])
            (folder / f"cifar10_{name}_{k}.aedat4").write_bytes(content)
    return root
