"""CIFAR from a local folder: what is read is what lies there, and nothing in a file is ever run."""

import os
import pickle
import subprocess

import numpy as np
import pytest
import torch
from fake_cifar import (
    FOLDERS,
    numbered_pixels,
    python2_pickle,
    python3_pickle,
    write_cifar,
)

from spikingmoe.data import DATA_SETS, load_data
from spikingmoe.data.digests import check_digests, write_digests
from spikingmoe.data.restricted_pickle import read_pickle
from spikingmoe.train.loader import make_loader

NAMES = ("cifar10", "cifar100")


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_cifar(folder, "cifar10", per_class=20)
    return write_cifar(folder, "cifar100")


def numbers(split):
    """The numbers that `numbered_pixels` wrote into the images."""
    return (split.stored[:, 0, 0, 0].int() * 256 + split.stored[:, 0, 0, 1].int()).tolist()


@pytest.mark.parametrize("name", NAMES)
def test_pixels_and_labels_are_those_of_the_files(root, name):
    data = load_data(name, root)
    n, classes = (200, 10) if name == "cifar10" else (1000, 100)
    assert data.name == name
    assert data.classes == tuple(f"class {i}" for i in range(classes))
    assert data.input_shape == (3, 32, 32)
    # the test set is the published one, in its order; rows are red, green and blue planes
    flat = numbered_pixels(n, n, seed=3)
    assert numbers(data.test) == list(range(n, 2 * n))
    labels = np.random.default_rng(1).permutation(np.arange(n) % classes).tolist()
    assert data.test.labels.tolist() == labels[::-1]
    for image, channel, row, column in [(0, 0, 0, 5), (3, 1, 2, 7), (n - 1, 2, 31, 30)]:
        expected = flat[image, 1024 * channel + 32 * row + column]
        assert data.test.stored[image, channel, row, column] == expected
    # training and validation share the training files, every image once, with its own label
    both = numbers(data.train) + numbers(data.validation)
    assert sorted(both) == list(range(n))
    of_image = dict(zip(both, torch.cat([data.train.labels, data.validation.labels]), strict=True))
    assert [int(of_image[i]) for i in range(n)] == labels


@pytest.mark.parametrize("name", NAMES)
def test_validation_is_a_fixed_tenth_of_every_class(root, name):
    data, again = load_data(name, root), load_data(name, root)
    classes = len(data.classes)
    per_class = 20 if name == "cifar10" else 10
    assert data.validation.labels.bincount().tolist() == [per_class // 10] * classes
    assert data.train.labels.bincount().tolist() == [per_class - per_class // 10] * classes
    assert numbers(data.validation) == numbers(again.validation)
    assert numbers(data.train) == numbers(again.train)
    assert numbers(data.train) != sorted(numbers(data.train)), "mixed, not in the order of the file"


def test_images_are_normalised_per_channel_by_the_training_split(root):
    data = load_data("cifar10", root)
    images = data.train.images
    assert images.dtype == torch.float32
    assert images.mean(dim=(0, 2, 3)) == pytest.approx([0, 0, 0], abs=1e-5)
    assert images.std(dim=(0, 2, 3), correction=0) == pytest.approx([1, 1, 1], abs=1e-5)
    assert data.input_limit == float(images.abs().max())
    # by hand, for one pixel of the test set
    pixel = int(data.test.stored[7, 2, 4, 9]) / 255
    blue = data.train.stored[:, 2].double() / 255
    by_hand = (pixel - float(blue.mean())) / float(blue.std(correction=0))
    assert float(data.test.images[7, 2, 4, 9]) == pytest.approx(by_hand, abs=1e-5)
    assert (data.normalisation.pixels(images) * 255).round().equal(data.train.stored.float())
    black = data.normalisation.images(torch.zeros(1, 3, 1, 1, dtype=torch.uint8))
    assert data.background == pytest.approx(black.flatten().tolist())


def test_memory_stays_that_of_the_bytes_and_batches_are_normalised(root):
    data = load_data("cifar100", root)
    for split in (data.train, data.validation, data.test):
        assert split.stored.dtype == torch.uint8
    batches = list(make_loader(data.test, 300))
    assert [len(labels) for _, labels in batches] == [300, 300, 300, 100]
    assert torch.cat([images for images, _ in batches]).equal(data.test.images)
    assert data.test.first(5).images.equal(data.test.images[:5])


@pytest.mark.parametrize("name", NAMES)
def test_both_pythons_and_both_folders_give_the_same(root, tmp_path, name):
    per_class = 20 if name == "cifar10" else 10
    write_cifar(tmp_path, name, per_class, dump=python3_pickle)
    old = load_data(name, str(root))
    for folder in (tmp_path, tmp_path / FOLDERS[name]):
        new = load_data(name, folder)
        assert new.train.stored.equal(old.train.stored)
        assert new.train.labels.equal(old.train.labels)
        assert new.classes == old.classes


def test_an_array_in_columns_is_read_as_one_in_rows(tmp_path):
    """NumPy stores a transposed array as such; the published files may be re-saved that way."""
    array = numbered_pixels(4, 0, seed=5)
    (tmp_path / "file").write_bytes(python2_pickle({b"data": np.asfortranarray(array)}))
    assert np.array_equal(read_pickle(tmp_path / "file")[b"data"], array)


# ---- files from strangers


class Call:
    """Pickles as a call of `function(*arguments)`."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda mark: Call(os.system, f"touch {mark}"), "posix.system"),
        (lambda mark: Call(eval, f"open({str(mark)!r}, 'w')"), "eval"),
        (lambda mark: Call(open, str(mark), "w"), "open"),
        (lambda mark: Call(np.save, str(mark), 1), "numpy.*save"),
        (lambda mark: Call(getattr, "x", "upper"), "getattr"),
        (lambda mark: np.arange(3.0).view(np.recarray), r"numpy.*rec(\.|array)|unsigned bytes"),
    ],
)
def test_a_pickle_that_calls_something_is_refused_and_not_run(tmp_path, protocol, call, name):
    write_cifar(tmp_path, "cifar10")
    mark = tmp_path / "mark.npy"
    victim = tmp_path / FOLDERS["cifar10"] / "data_batch_3"
    content = {b"data": call(mark), b"labels": [0]}
    victim.write_bytes(pickle.dumps(content, protocol=protocol))
    with pytest.raises(ValueError, match=rf"data_batch_3: .*({name})"):
        load_data("cifar10", tmp_path)
    assert not mark.exists()
    if "numpy" not in name and name != "getattr":  # the same file is dangerous to pickle itself
        result = pickle.loads(victim.read_bytes())[b"data"]
        getattr(result, "close", lambda: None)()
        assert mark.exists()


@pytest.mark.parametrize(
    "value",
    [
        np.zeros((2, 3072)),
        np.zeros((2, 3072), dtype=np.int8),
        np.array([[print]], dtype=object),
        np.zeros((2, 3072), dtype="V1"),
    ],
)
def test_arrays_of_anything_but_bytes_are_refused(tmp_path, value):
    write_cifar(tmp_path, "cifar10")
    victim = tmp_path / FOLDERS["cifar10"] / "test_batch"
    victim.write_bytes(python2_pickle({b"data": value, b"labels": [0, 1]}))
    with pytest.raises(ValueError, match=r"test_batch: .*(unsigned bytes|print)"):
        load_data("cifar10", tmp_path)


def test_a_pickle_cannot_smuggle_in_a_shape_or_an_encoding(tmp_path):
    """The stand-ins check what they are given: an array longer than its bytes, another codec."""
    array = numbered_pixels(2, 0, seed=6)
    good = python2_pickle({b"data": array})
    longer = good.replace(b"K\x02M\x00\x0c\x86", b"J\x00\x00\x00\x7fM\x00\x0c\x86")
    assert longer != good
    (tmp_path / "file").write_bytes(longer)
    with pytest.raises(ValueError, match="file: is cut short or damaged"):
        read_pickle(tmp_path / "file")
    text = python3_pickle({b"data": b"\xff"}).replace(b"latin1", b"rot_13")
    (tmp_path / "file").write_bytes(text)
    with pytest.raises(ValueError, match="encoded as 'rot_13'"):
        read_pickle(tmp_path / "file")


def test_a_file_cut_anywhere_is_refused_by_name(tmp_path):
    write_cifar(tmp_path, "cifar10", per_class=5)
    victim = tmp_path / FOLDERS["cifar10"] / "data_batch_2"
    whole = victim.read_bytes()
    for length in [0, 1, 7, 60, 200, *range(1000, len(whole), 5003), len(whole) - 1]:
        victim.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="data_batch_2: is cut short or damaged") as caught:
            load_data("cifar10", tmp_path)
        assert "\n" not in str(caught.value)


def test_random_bytes_never_escape_as_another_error(tmp_path):
    whole = python2_pickle({b"data": numbered_pixels(1, 0, seed=7), b"labels": [3]})
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(300):
        broken = bytearray(whole)
        for place in generator.integers(0, min(len(whole), 250), 3):
            broken[place] = generator.integers(0, 256)
        (tmp_path / "file").write_bytes(bytes(broken))
        try:
            read_pickle(tmp_path / "file")
        except ValueError as error:
            refused += str(error).startswith(f"{tmp_path / 'file'}: ")
    assert refused > 100


def rewrite(**changes):
    """Replace entries of a batch; None removes one."""

    def change(content):
        merged = {**content, **{key.encode(): value for key, value in changes.items()}}
        return {key: value for key, value in merged.items() if value is not None}

    return change


TWENTY = [*range(10), *range(10)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rewrite(labels=TWENTY[:-1]), r"has data of shape \(20, 3072\) and 19 labels; needs"),
        (rewrite(data=numbered_pixels(19, 0, 0)), r"shape \(19, 3072\) and 20 labels"),
        (rewrite(data=numbered_pixels(20, 0, 0)[:, :1024].copy()), r"shape \(20, 1024\)"),
        (rewrite(data=numbered_pixels(20, 0, 0).ravel()), r"shape \(61440,\)"),
        (rewrite(data=np.zeros((0, 3072), np.uint8), labels=[]), r"shape \(0, 3072\) and 0 labels"),
        (rewrite(labels=[*TWENTY[:-1], 10]), r"label 10 of image 19 must be a number in 0\.\.9"),
        (rewrite(labels=[-1, *TWENTY[1:]]), "label -1 of image 0"),
        (rewrite(labels=[0.0, *TWENTY[1:]]), r"label 0\.0 of image 0"),
        (rewrite(labels=[True, *TWENTY[1:]]), "label True of image 0"),
        (rewrite(labels=None), "'labels' is missing, needs a list"),
        (rewrite(data=None), "'data' is missing, needs a ndarray"),
        (rewrite(data=b"bytes"), "'data' is a bytes, needs a ndarray"),
        (rewrite(labels=[1, 1, *TWENTY[2:]]), "per class; as published, every class is equally"),
        (lambda content: [content], "holds a list; needs a dictionary"),
    ],
)
def test_files_that_are_not_as_published_are_refused_by_name(tmp_path, change, message):
    write_cifar(tmp_path, "cifar10")
    victim = tmp_path / FOLDERS["cifar10"] / "data_batch_5"
    content = {b"data": numbered_pixels(20, 80, seed=2), b"labels": list(TWENTY)}
    victim.write_bytes(python2_pickle(change(content)))
    with pytest.raises(ValueError, match=message) as caught:
        load_data("cifar10", tmp_path)
    assert "data_batch_5" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_missing_files_are_named(tmp_path, name):
    with pytest.raises(
        ValueError, match=rf"{FOLDERS[name]}: no such folder; .*unpack cifar-10.*tar"
    ):
        load_data(name, tmp_path)
    write_cifar(tmp_path, name)
    for path in sorted((tmp_path / FOLDERS[name]).iterdir()):
        whole = path.read_bytes()
        path.unlink()
        with pytest.raises(ValueError, match=f"{FOLDERS[name]}: lacks {path.name}; get"):
            load_data(name, tmp_path)
        path.write_bytes(whole)
    load_data(name, tmp_path)


def test_class_names_must_be_those_of_the_data_set(tmp_path):
    write_cifar(tmp_path, "cifar100")
    meta = tmp_path / FOLDERS["cifar100"] / "meta"
    meta.write_bytes(python2_pickle({b"fine_label_names": [b"one", b"two"]}))
    with pytest.raises(ValueError, match="meta: names 2 classes; cifar100 has 100"):
        load_data("cifar100", tmp_path)


# ---- data sets by name


def test_a_folder_is_asked_for_where_it_is_needed_and_only_there(tmp_path):
    events = {"nmnist", "dvsgesture", "cifar10dvs"}
    assert set(DATA_SETS) == {"digits", "digits-binary", "cifar10", "cifar100", "folder"} | events
    with pytest.raises(ValueError, match=r"'folder' is read from a folder of yours; .*--data-dir"):
        load_data("folder")
    with pytest.raises(ValueError, match=r"'digits' comes with a dependency.*leave --data-dir out"):
        load_data("digits", tmp_path)
    with pytest.raises(ValueError, match="unknown data set 'cifar'; did you mean 'cifar10'"):
        load_data("cifar", tmp_path)
    for name, missing in (("nmnist", "time_steps"), ("folder", "channels")):
        with pytest.raises(ValueError, match=f"'{name}' is made to measure; .* needs {missing}"):
            load_data(name, tmp_path, image_size=32)


@pytest.mark.parametrize("name", NAMES)
def test_one_pixel_changed_since_it_was_unpacked_is_noticed(tmp_path, name):
    folder = write_cifar(tmp_path, name) / FOLDERS[name]
    files = sorted(p.name for p in folder.iterdir())
    write_digests(folder, files)
    load_data(name, tmp_path)
    chosen = folder / ("data_batch_3" if name == "cifar10" else "train")
    content = bytearray(chosen.read_bytes())
    content[len(content) // 2] ^= 1
    chosen.write_bytes(bytes(content))
    message = (
        f"{chosen.name}: was changed since it was unpacked .* remove it, then get the data with"
    )
    with pytest.raises(ValueError, match=message):
        load_data(name, tmp_path)
    (folder / "SHA256SUMS").unlink()
    load_data(name, tmp_path)  # nothing says what the pixel was


def test_digests_are_those_of_sha256sum(tmp_path):
    for name in ("one", "two words"):
        (tmp_path / name).write_bytes(name.encode())
    write_digests(tmp_path, ["one", "two words"])
    told = subprocess.run(["sha256sum", "one", "two words"], cwd=tmp_path, capture_output=True)
    assert (tmp_path / "SHA256SUMS").read_bytes() == told.stdout
    check_digests(tmp_path, ["one", "two words", "not listed"], mend="unpack anew")
    (tmp_path / "SHA256SUMS").write_text("not a digest")
    with pytest.raises(ValueError, match="SHA256SUMS: line 1 is no digest and name"):
        check_digests(tmp_path, ["one"], mend="unpack anew")
