"""More NIR files from strangers than `test_nir` has: spoilt as HDF5, and as networks."""

from __future__ import annotations

import copy
import re
import time
from itertools import pairwise
from pathlib import Path

import h5py
import nir
import numpy as np
import pytest

from hardware.errors import FileError, GraphError, NirError
from hardware.nir import from_nir, read_nir, write_nir

PLACE = "node/nodes/n0"


def write_good(path: Path) -> Path:
    """input (3) -> n0, weights -> n1, LIF -> output."""
    ones = np.ones(3)
    nodes = {
        "input": nir.Input(input_type={"input": np.array([3])}),
        "n0": nir.Linear(weight=np.eye(3)),
        "n1": nir.LIF(tau=ones * 2e-4, r=ones * 2, v_leak=ones * 0, v_threshold=ones),
        "output": nir.Output(output_type={"output": np.array([3])}),
    }
    names = list(nodes)
    edges = list(pairwise(names))
    write_nir(path, nir.NIRGraph(nodes=nodes, edges=edges))
    return path


# ---- as HDF5


def dangling_link(f: h5py.File) -> None:
    f[f"{PLACE}/more"] = h5py.SoftLink("/nowhere")


def link_to_itself(f: h5py.File) -> None:
    f[f"{PLACE}/more"] = h5py.ExternalLink(Path(f.filename).name, "/")


def device_as_data(f: h5py.File) -> None:
    f.create_dataset(f"{PLACE}/more", (4,), "u1", external=[("/dev/zero", 0, h5py.h5f.UNLIMITED)])


def root_as_member(f: h5py.File) -> None:
    f[f"{PLACE}/more"] = f["/"]


def never_written(f: h5py.File) -> None:
    f.create_dataset(f"{PLACE}/more", (2**50,), "f8")  # contiguous, allocated late


def many_axes(f: h5py.File) -> None:
    f.create_dataset(f"{PLACE}/more", (2**20,) * 3, "u1", chunks=(1, 1, 2**20))


def scale_offset(f: h5py.File) -> None:
    f.create_dataset(f"{PLACE}/more", data=np.arange(100), chunks=(10,), scaleoffset=0)


def opaque_type(f: h5py.File) -> None:
    f[f"{PLACE}/more"] = np.zeros(3, "V64")


def ragged_rows(f: h5py.File) -> None:
    f.create_dataset(f"{PLACE}/more", (3,), h5py.vlen_dtype(np.float64))


def complex_numbers(f: h5py.File) -> None:
    f[f"{PLACE}/more"] = np.ones(3, np.complex128)


def long_texts(f: h5py.File) -> None:
    f.create_dataset(f"{PLACE}/more", (1000,), h5py.string_dtype(length=2**20))


def no_text(f: h5py.File) -> None:
    f[f"{PLACE}/more"] = np.bytes_(b"\xff\xfe")


SPOILT_FILES = [
    *(dangling_link, link_to_itself, device_as_data, root_as_member, never_written, many_axes),
    *(scale_offset, opaque_type, ragged_rows, complex_numbers, long_texts, no_text),
]


@pytest.mark.parametrize("spoil", SPOILT_FILES, ids=lambda f: f.__name__)
def test_hostile_files_are_refused(spoil, tmp_path):
    path = write_good(tmp_path / "x.nir")
    with h5py.File(path, "r+") as f:
        spoil(f)
    started = time.monotonic()
    with pytest.raises(FileError, match=r"x\.nir: '/node/nodes/n0/more' ") as caught:
        read_nir(path)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 20  # some seconds on a busy machine


# ---- as a network


def put(node: str, name: str, value: object):
    def change(tree: dict) -> None:
        tree["nodes"][node][name] = value

    return change


def drop(*keys: str):
    def change(tree: dict) -> None:
        for key in keys[:-1]:
            tree = tree[key]
        del tree[keys[-1]]

    return change


def wire(*edges: tuple[str, str]):
    def change(tree: dict) -> None:
        tree["edges"] = [list(edge) for edge in edges]

    return change


NAN, HUGE = np.full((3, 3), np.nan), np.full((3, 3), np.inf)
SPOILT_NETWORKS = {
    "weights that are no numbers": put("n0", "weight", NAN),
    "infinite weights": put("n0", "weight", HUGE),
    "weights without an axis": put("n0", "weight", np.asarray(1.0)),
    "weights with three axes": put("n0", "weight", np.ones((3, 3, 3))),
    "no weights at all": put("n0", "weight", np.zeros((3, 0))),
    "weights that are text": put("n0", "weight", "eye"),
    "weights that are a group": put("n0", "weight", {"a": np.ones(3)}),
    "weights of another width": put("n0", "weight", np.ones((3, 5))),
    "weights missing": drop("nodes", "n0", "weight"),
    "a kind nobody knows": put("n0", "type", "Exec"),
    "a kind that is a number": put("n0", "type", np.asarray(1.0)),
    "no kind": drop("nodes", "n0", "type"),
    "a time constant of nothing": put("n1", "tau", np.full(3, np.nan)),
    "a time constant below zero": put("n1", "tau", -np.ones(3)),
    "an infinite threshold": put("n1", "v_threshold", np.full(3, np.inf)),
    "a threshold below zero": put("n1", "v_threshold", -np.ones(3)),
    "neurons of another number": put("n1", "tau", np.full(7, 2e-4)),
    "an edge from nowhere": wire(("input", "n0"), ("ghost", "n1"), ("n1", "output")),
    "a cycle of two": wire(("input", "n0"), ("n0", "n1"), ("n1", "n0"), ("n1", "output")),
    "an edge of one end": lambda tree: tree.update(edges=[["input"]]),
    "edges that are a number": lambda tree: tree.update(edges=np.asarray(3.0)),
    "no edges": drop("edges"),
    "no nodes": lambda tree: tree.update(nodes={}),
    "nodes that are text": lambda tree: tree.update(nodes="n0"),
    "a shape without end": put("input", "shape", np.asarray([2**40, 2**40])),
    "a shape below zero": put("input", "shape", np.asarray([-3])),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    tree = read_nir(write_good(tmp_path_factory.mktemp("nir") / "x.nir"))
    assert from_nir(copy.deepcopy(tree), time_steps=2).readout.shape == (3,)
    return tree


@pytest.mark.parametrize("name", SPOILT_NETWORKS)
def test_spoilt_networks_are_refused(name, good):
    tree = copy.deepcopy(good)
    SPOILT_NETWORKS[name](tree)
    with pytest.raises((NirError, GraphError)) as caught:
        from_nir(tree, time_steps=2)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 600
    assert re.search(r"[a-z]{3}", text)
