"""Files are written whole or not at all, and every refusal to read is one line."""

from __future__ import annotations

import json
import math
import os
import resource
import signal
import time

import numpy as np
import pytest
from file_faults import (
    FAULTS,
    WHEN,
    damage,
    fault_at,
    kill_at,
    run_in_child,
    temporaries,
    trials,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file

from hardware import archive, files, strays
from hardware.errors import FileError
from hardware.files import (
    read_archive,
    remove_stray,
    write_archive,
    write_bytes,
    write_json,
    write_text,
)

KIND = {"kind": "test", "version": 3}
DTYPES = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")


def sample_arrays(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "weight": rng.standard_normal((6, 5)),
        "half": rng.standard_normal((3,)).astype(np.float16),
        "mask": rng.random((2, 3)) < 0.5,
        "step": np.asarray(seed),
        "none": np.zeros((0, 4), np.float32),
        "tiny": np.asarray([5e-324, -0.0, np.nan, np.inf]),
    }


def write_sample(path: os.PathLike[str], seed: int) -> None:
    write_archive(path, sample_arrays(seed), {"seed": seed, "names": ["a", "b"]}, **KIND)


WRITERS = {
    "bytes": lambda path, seed: write_bytes(path, bytes([seed]) * 2500),
    "json": lambda path, seed: write_json(path, {"seed": seed, "list": list(range(300))}),
    "archive": write_sample,
}


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several writes and reads per file."""
    monkeypatch.setattr(files, "CHUNK", 1000)


# --- writing -----------------------------------------------------------------------------------


def test_writes_what_it_was_given(tmp_path):
    path = tmp_path / "new" / "folder" / "file"
    for data in (b"", b"one", bytearray(b"two"), memoryview(np.arange(9.0)).cast("B")):
        write_bytes(path, data)
        assert path.read_bytes() == bytes(data)
    write_text(path, "Ωmega\n")
    assert path.read_text(encoding="utf-8") == "Ωmega\n"
    write_json(path, {"é": [1, 0.1, None, True]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"é": [1, 0.1, None, True]}
    assert os.listdir(path.parent) == ["file"]


def test_keeps_the_mode_and_follows_links(tmp_path):
    real, link = tmp_path / "real", tmp_path / "elsewhere" / "link"
    write_bytes(real, b"old")
    real.chmod(0o600)
    link.parent.mkdir()
    link.symlink_to(real)
    write_bytes(link, b"new")
    assert link.is_symlink()
    assert real.read_bytes() == b"new"
    assert real.stat().st_mode & 0o777 == 0o600


def test_long_and_odd_names(tmp_path):
    for name in ("x" * 255, "ü" * 127, "line\nbreak", ".hidden", "a b"):
        write_bytes(tmp_path / name, b"1")
        assert (tmp_path / name).read_bytes() == b"1"
    assert not temporaries(tmp_path)


@pytest.mark.parametrize("value", [math.nan, [1, math.inf], {"a": np.float32(1)}, {1, 2}, object()])
def test_json_refuses_what_json_is_not(tmp_path, value):
    path = tmp_path / "metrics.json"
    write_json(path, 1)
    with pytest.raises(FileError, match=r"metrics\.json: cannot write: JSON cannot hold it"):
        write_json(path, value)
    assert path.read_text() == "1\n"


def test_refuses_text_that_has_no_utf8(tmp_path):
    with pytest.raises(FileError, match="no UTF-8 form"):
        write_text(tmp_path / "text", "\ud800")


def test_refuses_targets_that_are_no_files(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    write_bytes(tmp_path / "plain", b"1")
    for target, match in (
        ("folder", "it is a folder; name a file in it"),
        ("pipe", "is no regular file"),
        ("plain/below", "Not a directory; check the path"),
        ("nul\0", "null byte"),
        ("x" * 300, "File name too long"),
    ):
        with pytest.raises(FileError, match=match) as caught:
            write_bytes(tmp_path / target, b"2")
        assert "\n" not in str(caught.value)
    with pytest.raises(FileError, match="is no regular file"):
        write_bytes(os.devnull, b"2")
    assert (tmp_path / "plain").read_bytes() == b"1"


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser has every permission")
def test_names_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(FileError, match=r"file: cannot write: Permission denied"):
        write_bytes(tmp_path / "file", b"1")


def test_check_can_refuse(tmp_path):
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def check(temporary: str) -> None:
        with open(temporary, "rb") as file:
            assert file.read() == b"new"
        raise ValueError("not good")

    with pytest.raises(FileError, match=r"file: cannot write: not good \(unchanged\)"):
        write_bytes(path, b"new", check=check)
    assert path.read_bytes() == b"old"
    assert not temporaries(tmp_path)


def test_finds_bytes_that_changed_on_the_way(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: real(fd, bytes(data)[:-1] + b"?"))
    with pytest.raises(FileError, match="what was read back differs"):
        write_bytes(tmp_path / "file", b"content")
    assert os.listdir(tmp_path) == []


def test_syncs_the_file_before_and_the_folder_after_the_rename(tmp_path, monkeypatch):
    log = []
    real_sync, real_replace = os.fsync, os.replace

    def sync(fd: int) -> None:
        log.append(os.readlink(f"/proc/self/fd/{fd}"))
        real_sync(fd)

    def rename(source: str, target: str) -> None:
        log.append(f"{source} -> {target}")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", rename)
    write_bytes(tmp_path / "new" / "file", b"1")
    parent, temporary, renamed, folder = log
    assert parent == str(tmp_path)
    assert temporary.startswith(f"{tmp_path}/new/.file.")
    assert renamed == f"{temporary} -> {tmp_path}/new/file"
    assert folder == f"{tmp_path}/new"


def test_a_real_limit_of_the_file_size(tmp_path):
    path = tmp_path / "file"
    write_bytes(path, b"old")

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
        with pytest.raises(FileError, match="file: cannot write: File too large"):
            write_bytes(path, bytes(10_000))

    assert run_in_child(limited) == 0
    assert path.read_bytes() == b"old"
    assert not temporaries(tmp_path)


# --- dying and failing at every point ----------------------------------------------------------


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("when", WHEN)
def test_sigkill_at_every_point(tmp_path, small_chunks, name, when):
    writer, path = WRITERS[name], tmp_path / "file"
    contents = []
    for seed in (1, 2):
        writer(path, seed)
        contents.append(path.read_bytes())
    old, new = contents
    number, left_behind, seen = 0, 0, set()
    while True:
        number += 1
        write_bytes(path, old)
        assert not temporaries(tmp_path)
        killed = kill_at(number, when, lambda: writer(path, 2))
        assert path.read_bytes() in (old, new)
        seen.add(path.read_bytes())
        left_behind += len(temporaries(tmp_path))
        if not killed:
            break
    assert number > 15
    assert left_behind > 3
    assert seen == {old, new}


@pytest.mark.parametrize("when", ["before", "after"])
def test_sigkill_while_folders_are_made(tmp_path, when):
    number, killed = 0, True
    while killed:
        number += 1
        path = tmp_path / str(number) / "deep" / "file"
        killed = kill_at(number, when, lambda path=path: write_bytes(path, b"new"))
        assert not path.exists() or path.read_bytes() == b"new"
        write_bytes(path, b"newer")
        assert os.listdir(path.parent) == ["file"]


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("fault", FAULTS)
def test_failure_at_every_point(tmp_path, small_chunks, name, fault):
    writer, path = WRITERS[name], tmp_path / "file"
    contents = []
    for seed in (1, 2):
        writer(path, seed)
        contents.append(path.read_bytes())
    old, new = contents
    make, refused = FAULTS[fault], 0

    def strike() -> None:
        raise make()

    for when in WHEN:
        number, struck = 0, ["first"]
        while struck:
            number += 1
            path.write_bytes(old)
            error: BaseException | None = None
            with fault_at(number, when, strike) as struck:
                try:
                    writer(path, 2)
                except (FileError, KeyboardInterrupt) as caught:
                    error = caught
            assert path.read_bytes() in (old, new)
            assert not temporaries(tmp_path)
            if isinstance(error, FileError):
                refused += 1
                assert str(path) in str(error)
                assert "\n" not in str(error)
                told = "new content" in str(error)
                # (a rename that succeeds and then reports a failure does not exist: no assertion)
                assert (path.read_bytes() == new) == told or struck == ["replace"]
            elif error is None:
                assert path.read_bytes() == new
    assert refused > 20 or fault == "Ctrl-C"


# --- temporary files of others -----------------------------------------------------------------


def _stray(folder, *, pid, place=None, age_s=0.0):
    place = strays._place() if place is None else place
    path = folder / f".model.{place}-{pid}-0123456789abcdef.tmp"
    path.write_bytes(b"part")
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def test_removes_only_what_the_dead_left(tmp_path):
    dead = run_in_child(lambda: None) or os.fork()
    if dead == 0:
        os._exit(0)
    os.waitpid(dead, 0)
    gone = [
        _stray(tmp_path, pid=dead),
        _stray(tmp_path, pid=9_999_999_999),
        _stray(tmp_path, pid=os.getpid()),  # not ours: an earlier process with our number
        _stray(tmp_path, pid=1, age_s=2 * strays.STRAY_AGE_S),
        _stray(tmp_path, pid=dead, place="00000000", age_s=2 * strays.STRAY_AGE_S),
    ]
    kept = [_stray(tmp_path, pid=os.getppid()), _stray(tmp_path, pid=1, place="00000000")]
    for name in ("model.tmp", ".model.tmp", ".model.1-2-3.tmp"):
        kept.append(tmp_path / name)
        kept[-1].write_bytes(b"of the user")
    remove_stray(tmp_path)
    assert not any(path.exists() for path in gone)
    assert all(path.exists() for path in kept)


def test_keeps_its_own_file_in_progress(tmp_path):
    write_bytes(tmp_path / "file", b"1", check=lambda temporary: remove_stray(tmp_path))
    assert (tmp_path / "file").read_bytes() == b"1"


def test_eight_writers_one_path(tmp_path):
    path, rounds = tmp_path / "shared", min(trials(40), 500)
    write_sample(path, 0)
    children = []
    for seed in range(8):
        pid = os.fork()
        if pid == 0:
            try:
                for _ in range(rounds):
                    write_sample(path, seed)
                os._exit(0)
            finally:
                os._exit(1)
        children.append(pid)
    codes = []
    while len(codes) < 8:
        arrays, meta = read_archive(path, **KIND)
        assert_equal(arrays, sample_arrays(meta["seed"]))
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            assert pid in children
            codes.append(os.waitstatus_to_exitcode(status))
    assert codes == [0] * 8
    assert os.listdir(tmp_path) == ["shared"]


# --- archives ----------------------------------------------------------------------------------


def assert_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Same names in the same order; same types, shapes and bits."""
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype.newbyteorder("<")
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.astype(found[name].dtype).tobytes()


def test_archive_returns_what_went_in(tmp_path):
    path = tmp_path / "archive"
    meta = {"b": [1, -0.0, 5e-324, 1e308, None, True], "a": {"ü\ud800": "\n"}, "n": 2**70}
    arrays = {f"{d}{s}": np.ones(s, d) for d in DTYPES for s in [(), (0,), (3,), (2, 0, 1), (2, 3)]}
    write_archive(path, arrays, meta, **KIND)
    found, found_meta = read_archive(path, **KIND)
    assert_equal(found, arrays)
    assert json.dumps(found_meta) == json.dumps(meta)
    assert all(array.flags.writeable and array.flags.aligned for array in found.values())
    assert_equal(dict(sorted(load_file(path).items())), dict(sorted(arrays.items())))


def test_archive_takes_any_memory_order(tmp_path):
    base = np.arange(24.0).reshape(2, 3, 4)
    arrays = {
        "transposed": base.T,
        "strided": base[:, ::-2, 1::2],
        "broadcast": np.broadcast_to(np.asarray(1.5), (3, 2)),
        "big": base.astype(">f8"),
        "big0": np.asarray(7, ">i2"),
        "scalar": np.float32(1.5),
    }
    write_archive(tmp_path / "a", arrays, {}, **KIND)
    found, _ = read_archive(tmp_path / "a", **KIND)
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype.newbyteorder("=") == array.dtype.newbyteorder("=")


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    arrays=st.dictionaries(
        st.text(max_size=8),
        st.sampled_from(DTYPES).flatmap(
            lambda d: hnp.arrays(d, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4))
        ),
        max_size=4,
    ),
    meta=st.dictionaries(
        st.text(max_size=5),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(max_size=5),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
            max_leaves=8,
        ),
        max_size=4,
    ),
)  # fmt: skip
def test_archive_round_trip(tmp_path, arrays, meta):
    write_archive(tmp_path / "a", arrays, meta, **KIND)
    first = (tmp_path / "a").read_bytes()
    found, found_meta = read_archive(tmp_path / "a", **KIND)
    assert_equal(found, arrays)
    assert repr(found_meta) == repr(meta)
    write_archive(tmp_path / "a", found, found_meta, **KIND)
    assert (tmp_path / "a").read_bytes() == first


@pytest.mark.parametrize(
    ("arrays", "meta", "match"),
    [
        ({"o": np.asarray([None])}, {}, "array 'o' is object; use one of F64"),
        ({"c": np.asarray([1j])}, {}, "array 'c' is complex128"),
        ({"s": np.asarray(["a"])}, {}, "array 's' is <U1"),
        ({"__metadata__": np.zeros(1)}, {}, "cannot be called '__metadata__'"),
        ({}, {"x": math.nan}, "not JSON compliant"),
        ({}, {"x": object()}, "not JSON serializable"),
        ({}, {"x": {1: 2}}, "keys that are not strings"),
        ({}, {"x": json.loads("[" * 70 + "]" * 70)}, "deeper than 64"),
        ({}, {"x": "y" * archive.MAX_HEADER}, "the header has"),
    ],
)
def test_archive_refuses_what_it_cannot_hold(tmp_path, arrays, meta, match):
    path = tmp_path / "model"
    with pytest.raises(FileError, match=match) as caught:
        write_archive(path, arrays, meta, **KIND)
    assert str(caught.value).startswith(f"{path}: cannot write: ")
    assert not path.exists()


def test_reading_names_what_is_wrong(tmp_path):
    good = tmp_path / "good"
    write_sample(good, 1)
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "short").write_bytes(good.read_bytes()[:-1])
    (tmp_path / "other").write_bytes(b"PK\3\4" * 100)
    os.mkfifo(tmp_path / "pipe")
    for name, match in (
        ("missing", "No such file or directory; check the path"),
        (".", "it is a folder"),
        ("pipe", "is no regular file"),
        ("empty", "is no file of this project"),
        ("other", "is no file of this project"),
        ("short", "was cut short or altered; restore a copy or write it again"),
        ("nul\0", "null byte"),
    ):
        with pytest.raises(FileError, match=match):
            read_archive(tmp_path / name, **KIND)
    with pytest.raises(FileError, match="good: is a 'test', not a 'spikegraph'"):
        read_archive(good, kind="spikegraph", version=3)
    with pytest.raises(FileError, match="has version 3 of the format 'test', this program reads"):
        read_archive(good, kind="test", version=4)


def test_refusals_leave_no_descriptor_open(tmp_path):
    write_sample(tmp_path / "short", 1)
    os.truncate(tmp_path / "short", 500)
    before = len(os.listdir("/proc/self/fd"))
    for name in (".", "short", "missing"):
        for _ in range(5):
            with pytest.raises(FileError):
                read_archive(tmp_path / name, **KIND)
            with pytest.raises(FileError):
                write_bytes(tmp_path, b"")
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_plain_safetensors_file_is_refused(tmp_path):
    from safetensors.numpy import save_file

    save_file({"x": np.zeros(64)}, tmp_path / "plain")
    with pytest.raises(FileError, match="is no file of this project"):
        read_archive(tmp_path / "plain", **KIND)


def _with_header(header: str, data: bytes = b"", length: int | None = None) -> bytes:
    """An archive with a right digest and any header after its fixed beginning."""
    text = archive._PREFIX.decode() + "0" * 64 + header
    text += " " * (-len(text.encode()) % 8)
    size = len(text.encode()) if length is None else length
    out = bytearray(size.to_bytes(8, "little") + text.encode() + data)
    archive.seal(out)
    return bytes(out)


ABOUT = '","kind":"test","version":"3","content":"{}"}'
F8 = '"dtype":"F64","shape":[1],"data_offsets":[0,8]'
HOSTILE = {
    "length beyond the file": _with_header(ABOUT + "}", length=2**20),
    "length 2^64": _with_header(ABOUT + "}", length=2**64 - 1),
    "length zero": _with_header(ABOUT + "}", length=0),
    "no JSON": _with_header('","'),
    "not ASCII": _with_header(ABOUT + ',"ü":{}}'),
    "nesting": _with_header(ABOUT + ',"a":' + "[" * 200_000),
    "closed nesting": _with_header(ABOUT + ',"a":' + "[" * 900 + "]" * 900 + "}"),
    "nesting in the content": _with_header(
        ABOUT.replace("{}", '{\\"a\\":' + "[" * 200 + "]" * 200 + "}") + "}"
    ),
    "metadata twice": _with_header(ABOUT + ',"__metadata__":{}}'),
    "array twice": _with_header(ABOUT + f',"a":{{{F8}}},"a":{{{F8}}}}}', bytes(8)),
    "no kind": _with_header('","version":"3","content":"{}"}}'),
    "number as kind": _with_header(ABOUT.replace('"test"', "1") + "}"),
    "content is a number": _with_header(ABOUT.replace('"{}"', "1") + "}"),
    "content is a list": _with_header(ABOUT.replace("{}", "[]") + "}"),
    "content is NaN": _with_header(ABOUT.replace("{}", '{\\"a\\":NaN}') + "}"),
    "content is 1e999": _with_header(ABOUT.replace("{}", '{\\"a\\":1e999}') + "}"),
    "content is a long integer": _with_header(
        ABOUT.replace("{}", '{\\"a\\":' + "9" * 9999 + "}") + "}"
    ),
    "huge shape": _with_header(ABOUT + ',"a":{"dtype":"F64","shape":[1099511627776],'
                               '"data_offsets":[0,8796093022208]}}'),
    "shape that overflows": _with_header(ABOUT + ',"a":{"dtype":"F64","shape":[281474976710655,'
                                         '281474976710655,0],"data_offsets":[0,0]}}'),
    "shape 2^64": _with_header(ABOUT + ',"a":{"dtype":"U8","shape":[18446744073709551616],'
                               '"data_offsets":[0,0]}}'),
    "negative shape": _with_header(ABOUT + ',"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,-1]}}'),
    "100 axes": _with_header(ABOUT + ',"a":{"dtype":"U8","shape":[' + ",".join("1" * 100)
                             + '],"data_offsets":[0,1]}}', b"\0"),
    "shape of booleans": _with_header(ABOUT + ',"a":{"dtype":"U8","shape":[true],'
                                      '"data_offsets":[0,1]}}', b"\0"),
    "shape is text": _with_header(ABOUT + ',"a":{"dtype":"U8","shape":"1","data_offsets":[0,1]}}'),
    "dtype is a list": _with_header(ABOUT + ',"a":{"dtype":[],"shape":[1],"data_offsets":[0,1]}}'),
    "unknown dtype": _with_header(ABOUT + ',"a":{"dtype":"BF16","shape":[0],"data_offsets":[0,0]}}'),
    "array is a number": _with_header(ABOUT + ',"a":1}'),
    "overlap": _with_header(ABOUT + f',"a":{{{F8}}},"b":{{{F8}}}}}', bytes(8)),
    "hole": _with_header(ABOUT + f',"a":{{{F8.replace("[0,8]", "[8,16]")}}}}}', bytes(16)),
    "bytes after the end": _with_header(ABOUT + "}", bytes(8)),
    "boolean 2": _with_header(ABOUT + ',"a":{"dtype":"BOOL","shape":[1],"data_offsets":[0,1]}}',
                              b"\2"),
    "unknown key": _with_header(ABOUT + f',"a":{{{F8},"x":1}}}}', bytes(8)),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_headers_are_refused(tmp_path, name):
    path = tmp_path / "hostile"
    path.write_bytes(HOSTILE[name])
    started = time.process_time()
    with pytest.raises(FileError) as caught:
        read_archive(path, **KIND)
    assert time.process_time() - started < 1.0
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_the_hostile_frame_itself_is_good(tmp_path):
    (tmp_path / "a").write_bytes(_with_header(ABOUT + f',"a":{{{F8}}}}}', np.ones(1).tobytes()))
    arrays, meta = read_archive(tmp_path / "a", **KIND)
    assert_equal(arrays, {"a": np.ones(1)})
    assert meta == {}


def test_a_huge_file_is_refused_unread(tmp_path):
    with open(tmp_path / "huge", "wb") as file:
        file.truncate(files.MAX_FILE + 1)
    with pytest.raises(FileError, match="bytes; at most"):
        read_archive(tmp_path / "huge", **KIND)


@pytest.mark.parametrize("resealed", [False, True])
def test_random_damage(tmp_path, resealed):
    path = tmp_path / "file"
    write_sample(path, 1)
    good, rng, loaded = path.read_bytes(), np.random.default_rng(8), 0
    for trial in range(trials(500)):
        data = bytearray(damage(good, rng))
        if resealed and len(data) >= archive.HEAD:
            archive.seal(data)
        path.write_bytes(data)
        started = time.process_time()
        try:
            arrays, meta = read_archive(path, **KIND)
        except FileError as error:
            assert "\n" not in str(error), trial  # noqa: PT017 - either may happen
        else:
            loaded += 1
            assert bytes(data) == good or resealed, f"trial {trial} loaded silently wrong"
            assert isinstance(meta, dict)
            assert sum(array.nbytes for array in arrays.values()) < len(data)
        assert time.process_time() - started < 1.0, trial
    assert (loaded > 0) == resealed


@pytest.mark.parametrize("fault", ["input/output error", "memory"])
def test_reading_fails_at_every_point(tmp_path, fault):
    path, number, struck = tmp_path / "file", 0, ["first"]
    write_sample(path, 1)

    def strike() -> None:
        raise FAULTS[fault]()

    while struck:
        number += 1
        with fault_at(number, "before", strike) as struck:
            try:
                arrays, _ = read_archive(path, **KIND)
                assert_equal(arrays, sample_arrays(1))
            except FileError as error:
                assert str(path) in str(error)  # noqa: PT017 - either may happen


def test_sigkill_is_what_the_tests_send():
    assert run_in_child(lambda: os.kill(os.getpid(), signal.SIGKILL)) == -signal.SIGKILL
