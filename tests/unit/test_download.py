"""Downloads: whole or not at all, resumed wherever they were cut, one line where they cannot be."""

import errno
import hashlib
import http.client
import os
import random
import signal
import subprocess
import sys
import time
from collections import namedtuple

import pytest
from local_server import Served, serve

from spikingmoe.data import download as module
from spikingmoe.data.download import DownloadError, RemoteFile, download

CONTENT = random.Random(0).randbytes(300_000)
TRIALS = int(os.environ.get("SPIKINGMOE_TRIALS", "4"))


def remote(served, content=CONTENT, *, size=True, name="file"):
    md5 = hashlib.md5(content).hexdigest()
    length = len(content) if size else None
    return RemoteFile(url=f"{served.url}{name}", name=name, md5=md5, size=length)


def fetch(what, folder, **kwargs):
    return download(what, folder, pause_s=0.01, timeout_s=2, **kwargs)


def names(folder):
    return sorted(p.name for p in folder.iterdir())


@pytest.mark.parametrize("size", [True, False])
def test_a_whole_file_arrives_and_is_not_fetched_twice(tmp_path, size):
    with serve(Served({"file": CONTENT})) as served:
        seen = []
        folder = tmp_path / "new" / "folder"
        path = fetch(remote(served, size=size), folder, progress=lambda *p: seen.append(p))
        assert path.read_bytes() == CONTENT
        assert names(folder) == ["file"]
        assert seen[0] == (0, 300_000)
        assert seen[-1] == (300_000, 300_000)
        assert fetch(remote(served, size=size), folder) == path
        assert served.asked == [("/file", None)]


def test_a_damaged_file_of_that_name_is_fetched_anew(tmp_path):
    (tmp_path / "file").write_bytes(CONTENT[:-1] + b"x")
    with serve(Served({"file": CONTENT})) as served:
        assert fetch(remote(served), tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize("size", [True, False])
def test_a_connection_that_is_cut_is_resumed_where_it_was(tmp_path, size):
    with serve(Served({"file": CONTENT}, cuts=[100_000, 50_000])) as served:
        assert fetch(remote(served, size=size), tmp_path).read_bytes() == CONTENT
        ranges = [r for _, r in served.asked]
        assert ranges == [None, "bytes=100000-", "bytes=150000-"]


def test_a_connection_that_brings_something_may_break_again_and_again(tmp_path):
    with serve(Served({"file": CONTENT}, cuts=[40_000] * 7)) as served:
        assert fetch(remote(served), tmp_path, attempts=2).read_bytes() == CONTENT
        assert len(served.asked) == 8


def test_a_later_process_goes_on_with_the_part_that_is_there(tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT[:123_456])
    with serve(Served({"file": CONTENT})) as served:
        assert fetch(remote(served), tmp_path).read_bytes() == CONTENT
        assert served.asked == [("/file", "bytes=123456-")]
    assert names(tmp_path) == ["file"]


def test_a_part_that_is_whole_is_only_checked(tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT)
    with serve(Served({"file": CONTENT})) as served:
        assert fetch(remote(served), tmp_path).read_bytes() == CONTENT
        assert served.asked == []


@pytest.mark.parametrize("have", [1, 123_456, 299_999, 400_000])
def test_a_server_that_ignores_ranges_is_read_from_the_start(tmp_path, have):
    (tmp_path / "file.part").write_bytes(b"?" * have)
    with serve(Served({"file": CONTENT}, ranges=False)) as served:
        assert fetch(remote(served), tmp_path).read_bytes() == CONTENT


def test_a_part_longer_than_the_file_is_thrown_away(tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT + b"more")
    with serve(Served({"file": CONTENT})) as served:  # answers 416
        assert fetch(remote(served, size=False), tmp_path).read_bytes() == CONTENT


def test_a_whole_part_of_unknown_length_is_not_fetched_again(tmp_path):
    (tmp_path / "file.part").write_bytes(CONTENT)
    with serve(Served({"file": CONTENT})) as served:  # answers 416 and says how long the file is
        assert fetch(remote(served, size=False), tmp_path).read_bytes() == CONTENT
        assert served.asked == [("/file", f"bytes={len(CONTENT)}-")]


@pytest.mark.parametrize("code", [errno.EHOSTUNREACH, errno.ENETDOWN])
def test_a_network_that_goes_away_is_no_trouble_of_the_disk(tmp_path, monkeypatch, code):
    """Not every error of a socket is a ConnectionError."""
    read, failures = http.client.HTTPResponse.read1, [code]

    def failing(self, n=-1):
        if failures:
            raise OSError(failures.pop(), "gone")
        return read(self, n)

    monkeypatch.setattr(http.client.HTTPResponse, "read1", failing)
    with serve(Served({"file": CONTENT})) as served:
        assert fetch(remote(served), tmp_path).read_bytes() == CONTENT
        assert len(served.asked) == 2


def test_trouble_of_the_server_is_waited_out(tmp_path):
    with serve(Served({"file": CONTENT}, statuses=[503, 429, 500])) as served:
        assert fetch(remote(served), tmp_path).read_bytes() == CONTENT
        assert len(served.asked) == 4


# ---- what cannot be downloaded


def refused(match, what, folder, **kwargs):
    with pytest.raises(DownloadError, match=match) as caught:
        fetch(what, folder, **kwargs)
    assert "\n" not in str(caught.value)
    assert not (folder / what.name).exists()


def test_a_wrong_checksum_is_refused_and_thrown_away(tmp_path):
    other = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    with serve(Served({"file": other})) as served:
        what = remote(served)
        refused("file: came with the MD5 .*, published is .*; it was thrown away", what, tmp_path)
        assert names(tmp_path) == []


def test_a_file_that_is_not_there_is_not_asked_for_again(tmp_path):
    with serve(Served({})) as served:
        refused("the server answers 404 Not Found; check the address", remote(served), tmp_path)
        assert len(served.asked) == 1


def test_a_file_of_another_length_is_not_even_read(tmp_path):
    with serve(Served({"file": b"<html>please log in</html>"})) as served:
        match = "has 26 bytes, published are 300000; this is another file"
        refused(match, remote(served), tmp_path)
    assert names(tmp_path) == []


def test_a_file_that_is_always_cut_is_given_up_with_what_came_kept(tmp_path):
    with serve(Served({"file": CONTENT[:5000]}, length=300_000)) as served:
        served.ranges = False
        match = (
            "the connection ended after 5000 of 300000 bytes, 3 times in a row; check the network"
        )
        refused(match, remote(served), tmp_path, attempts=3)
        assert len(served.asked) >= 3
    assert (tmp_path / "file.part").read_bytes() == CONTENT[:5000]


def test_a_server_that_contradicts_itself_is_given_up(tmp_path):
    """It announces more than it has, and says that there is no more: what is gained anew is no gain."""
    with serve(Served({"file": CONTENT[:5000]}, length=300_000)) as served:
        match = "3 times in a row; check the network"
        refused(match, remote(served, size=False), tmp_path, attempts=3)
        assert [r for _, r in served.asked] == [None, "bytes=5000-", None]


def test_no_server_is_one_line(tmp_path):
    with serve(Served({})) as served:
        what = remote(served)
    refused("cannot be reached .*, 2 times in a row; check the network", what, tmp_path, attempts=2)


def test_a_server_that_says_nothing_is_given_up(tmp_path):
    with serve(Served({"file": CONTENT}, delay_s=1.0)) as served:
        match = "timed out"
        with pytest.raises(DownloadError, match=match):
            download(remote(served), tmp_path, pause_s=0.01, timeout_s=0.1, attempts=2)


def test_a_file_of_unknown_length_needs_an_announced_one(tmp_path):
    with serve(Served({"file": CONTENT}, length=None)) as served:
        assert fetch(remote(served), tmp_path).read_bytes() == CONTENT  # published, so known
        (tmp_path / "file").unlink()
        refused("does not say how long the file is", remote(served, size=False), tmp_path)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "cifar.tar.gz", ""])
def test_only_http_is_read(tmp_path, url):
    what = RemoteFile(url=url, name="file", md5="0" * 32)
    refused("is no address of http:// or https://; give one", what, tmp_path)


def test_too_little_space_is_said_before_anything_is_read(tmp_path, monkeypatch):
    Usage = namedtuple("Usage", "total used free")
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: Usage(1, 1, 200_000))
    with serve(Served({"file": CONTENT})) as served:
        refused("needs 0 MB more, 0 MB are free; free some space", remote(served), tmp_path)
    assert names(tmp_path) == []


def test_a_disk_that_fills_up_keeps_the_part(tmp_path, monkeypatch):
    sync, calls = os.fsync, []

    def full(fd):
        calls.append(fd)
        if len(calls) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(fd)

    monkeypatch.setattr(module.os, "fsync", full)
    with serve(Served({"file": CONTENT})) as served:
        refused(
            "file.part: cannot be written .*free some space, then run", remote(served), tmp_path
        )
        assert fetch(remote(served), tmp_path).read_bytes() == CONTENT


def test_a_folder_that_takes_no_file_is_named(tmp_path):
    (tmp_path / "occupied").write_text("")
    match = r"cannot be written .*; use another --data-dir"
    with serve(Served({"file": CONTENT})) as served, pytest.raises(DownloadError, match=match):
        fetch(remote(served), tmp_path / "occupied")


# ---- killed at any moment

FETCH = """
import sys
from pathlib import Path
from spikingmoe.data.download import RemoteFile, download
url, md5, folder = sys.argv[1:]
download(RemoteFile(url=url, name="file", md5=md5), Path(folder))
"""


@pytest.mark.parametrize("seed", range(TRIALS))
def test_a_killed_download_is_resumed_and_nothing_partial_is_named(tmp_path, seed):
    moments = random.Random(seed)
    with serve(Served({"file": CONTENT}, delay_s=0.002)) as served:
        what = remote(served)
        argv = [sys.executable, "-c", FETCH, what.url, what.md5, str(tmp_path)]
        killed = 0
        while True:
            process = subprocess.Popen(argv, stderr=subprocess.PIPE)
            before = len(served.asked)
            while process.poll() is None and len(served.asked) == before:
                time.sleep(0.005)  # until it has asked
            if killed < 3:
                time.sleep(moments.uniform(0.02, 0.15))
                process.send_signal(signal.SIGKILL)
            _, err = process.communicate(timeout=60)
            if process.returncode != -signal.SIGKILL:
                assert process.returncode == 0, err.decode()
                break
            killed += 1
            assert set(names(tmp_path)) <= {"file.part"}
            if (tmp_path / "file.part").exists():
                part = (tmp_path / "file.part").read_bytes()
                assert part == CONTENT[: len(part)]
        assert (tmp_path / "file").read_bytes() == CONTENT
        assert names(tmp_path) == ["file"]
        assert killed == 3
        assert any(r for _, r in served.asked[1:]), "it went on where it was"
