"""Unpacking: the known files alone, nothing outside the folder, whole or not at all."""

import io
import os
import re
import stat
import tarfile
import zipfile

import pytest

from spikingmoe.data.unpack import Limits, UnpackError, unpack

LIMITS = Limits(members=10, member_bytes=1000, total_bytes=3000)


def wanted(name):
    match = re.fullmatch(r"(?:.*/)?data/(\w+)", name)
    return match[1] if match else None


def entry(name, content=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def write_tar(path, *entries):
    with tarfile.open(path, "w:gz") as file:
        for info, content in entries:
            file.addfile(info, io.BytesIO(content))
    return path


def write_zip(path, files, **modes):
    with zipfile.ZipFile(path, "w") as file:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = modes.get(name, stat.S_IFREG | 0o644) << 16
            file.writestr(info, content)
    return path


def tree(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


GOOD = (
    entry("data", type=tarfile.DIRTYPE),
    entry("data/one", b"1" * 900),
    entry("data/readme.html", b"left out"),
    entry("data/two", b"22", mode=0o4777),
)


def test_known_members_are_unpacked_and_others_left_out(tmp_path):
    archive = write_tar(tmp_path / "a.tar.gz", *GOOD)
    assert unpack(archive, tmp_path / "into" / "data", wanted, LIMITS) == 2
    assert tree(tmp_path / "into") == ["data", "data/one", "data/two"]
    assert (tmp_path / "into/data/one").read_bytes() == b"1" * 900
    mode = (tmp_path / "into/data/two").stat().st_mode
    assert not mode & (stat.S_ISUID | stat.S_IXUSR)


def test_a_zip_is_unpacked_alike_and_those_in_it_too(tmp_path):
    inner = write_zip(tmp_path / "cat.zip", {"data/one": b"1", "other": b"x"})
    outer = {"x/data/two": b"2", "cat.zip": inner.read_bytes(), "dog.zip": b"not wanted"}
    archive = write_zip(tmp_path / "a.zip", outer)

    def with_inner(name):
        return name if name == "cat.zip" else wanted(name)

    assert unpack(archive, tmp_path / "out", with_inner, LIMITS, nested=True) == 2
    assert tree(tmp_path / "out") == ["one", "two"]


def test_an_older_folder_is_replaced_as_a_whole(tmp_path):
    old = tmp_path / "data"
    old.mkdir()
    (old / "leftover").write_text("")
    unpack(write_tar(tmp_path / "a.tar.gz", *GOOD), old, wanted, LIMITS)
    assert tree(tmp_path) == ["a.tar.gz", "data", "data/one", "data/two"]


def test_what_a_killed_unpacking_left_is_removed(tmp_path):
    stray = tmp_path / ".data.abc.unpacking"
    stray.mkdir()
    (stray / "half").write_text("x")
    unpack(write_tar(tmp_path / "a.tar.gz", *GOOD), tmp_path / "data", wanted, LIMITS)
    assert not stray.exists()


HOSTILE = {
    "absolute": (entry("/data/one", b"x"), "'/data/one' leads out of the archive"),
    "above": (entry("../data/one", b"x"), r"'\.\./data/one' leads out of the archive"),
    "hidden above": (entry("data/../../data/one", b"x"), "leads out of the archive"),
    "backslash": (entry("..\\data/one", b"x"), "leads out of the archive"),
    "symbolic link": (
        entry("data/three", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
        "'data/three' is a link or a device",
    ),
    "hard link": (
        entry("data/three", type=tarfile.LNKTYPE, linkname="data/one"),
        "is a link or a device",
    ),
    "device": (entry("data/three", type=tarfile.CHRTYPE), "is a link or a device"),
    "pipe": (entry("data/three", type=tarfile.FIFOTYPE), "is a link or a device"),
    "large": (entry("data/three", b"x" * 1001), r"'data/three' \(1001 bytes, .*goes beyond"),
    "twice": (entry("data/one", b"other"), "holds one twice"),
    "line break": (entry("../a\nb", b"x"), "'../a b' leads out"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_member_leaves_nothing_behind(tmp_path, kind):
    member, message = HOSTILE[kind]
    archive = write_tar(tmp_path / "a.tar.gz", *GOOD, member)
    (tmp_path / "into").mkdir()
    with pytest.raises(UnpackError, match=message) as caught:
        unpack(archive, tmp_path / "into" / "data", wanted, LIMITS)
    assert "\n" not in str(caught.value)
    assert str(archive) in str(caught.value)
    assert tree(tmp_path) == ["a.tar.gz", "into"]


def test_a_hostile_member_of_a_zip_is_refused_too(tmp_path):
    for name, mode, message in (
        ("../data/one", stat.S_IFREG, "leads out of the archive"),
        ("data/one", stat.S_IFLNK, "is a link or a device"),
    ):
        archive = write_zip(tmp_path / "a.zip", {name: b"/etc/passwd"}, **{name: mode | 0o777})
        with pytest.raises(UnpackError, match=message):
            unpack(archive, tmp_path / "data", wanted, LIMITS)
    assert tree(tmp_path) == ["a.zip"]


def test_many_or_long_members_are_refused_though_they_are_left_out(tmp_path):
    many = [entry(f"x{i}") for i in range(11)]
    long = [entry(f"x{i}", b"x" * 800) for i in range(4)]
    for entries in (many, long):
        archive = write_tar(tmp_path / "a.tar.gz", *entries)
        with pytest.raises(UnpackError, match="goes beyond what was published"):
            unpack(archive, tmp_path / "data", wanted, LIMITS)


def test_an_archive_cut_or_changed_anywhere_is_damaged(tmp_path):
    whole = write_tar(tmp_path / "a.tar.gz", *GOOD).read_bytes()
    zipped = write_zip(tmp_path / "b.zip", {"data/one": os.urandom(500)}).read_bytes()
    broken = tmp_path / "broken"
    cases = [whole[:n] for n in (0, 5, 20, len(whole) // 2, 3 * len(whole) // 4)]
    cases += [zipped[:300] + b"??" + zipped[302:], zipped[:-30], b"no archive at all"]
    for content in cases:
        broken.write_bytes(content)
        with pytest.raises(UnpackError, match=r"broken: (is damaged \(.*remove it|holds none)"):
            unpack(broken, tmp_path / "data", wanted, LIMITS)
    assert tree(tmp_path) == ["a.tar.gz", "b.zip", "broken"]


def test_an_archive_of_something_else_is_refused(tmp_path):
    archive = write_tar(tmp_path / "a.tar.gz", entry("cats/one", b"1"))
    with pytest.raises(UnpackError, match=r"a.tar.gz: holds none of the files of data"):
        unpack(archive, tmp_path / "data", wanted, LIMITS)


def test_a_place_that_takes_no_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    archive = write_tar(tmp_path / "a.tar.gz", *GOOD)
    with pytest.raises(UnpackError, match="file/data: cannot be written"):
        unpack(archive, tmp_path / "file" / "data", wanted, LIMITS)
