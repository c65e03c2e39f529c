"""Published data sets: downloaded where they are missing, unpacked, read; the command that does it."""

import hashlib
import io
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from fake_cifar import FOLDERS, write_cifar
from local_server import Served, serve

from spikingmoe.cli.main import main
from spikingmoe.data import DATA_SETS, load_data, published
from spikingmoe.data.download import DownloadError
from spikingmoe.data.published import PUBLISHED, data_home, how_to_get, missing, provide
from spikingmoe.data.unpack import UnpackError

ARCHIVES = {"cifar10": "cifar-10-python.tar.gz", "cifar100": "cifar-100-python.tar.gz"}


def packed(folder, extra=()):
    """A folder as the published archive: in a gzipped tar, under its own name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        file.add(folder, arcname=folder.name)
        for name in extra:
            file.addfile(tarfile.TarInfo(name))
    return buffer.getvalue()


@pytest.fixture
def publish(tmp_path, monkeypatch):
    """Small archives in the place of the published ones: size and checksum are theirs."""

    def as_published(name, content):
        (archive,) = PUBLISHED[name]
        size, md5 = len(content), hashlib.md5(content).hexdigest()
        remote = replace(archive.remote, size=size, md5=md5, url="http://127.0.0.1:9/nothing")
        monkeypatch.setitem(PUBLISHED, name, (replace(archive, remote=remote),))
        return remote.name

    monkeypatch.setenv("SPIKINGMOE_DATA", str(tmp_path / "home"))
    monkeypatch.setattr(published, "download", quick(published.download))
    return as_published


def quick(download):
    return lambda *args, **kwargs: download(*args, **kwargs, pause_s=0.01, timeout_s=2)


def point_to(monkeypatch, name, url):
    (archive,) = PUBLISHED[name]
    remote = replace(archive.remote, url=url + archive.remote.name)
    monkeypatch.setitem(PUBLISHED, name, (replace(archive, remote=remote),))


def test_cifar_is_where_its_author_publishes_it():
    for name, md5, size in (
        ("cifar10", "c58f30108f718f92721af3b95e74349a", 170_498_071),
        ("cifar100", "eb9058c3a382ffc7106e4002c42a8d85", 169_001_437),
    ):
        (archive,) = PUBLISHED[name]
        assert archive.remote.url == f"https://www.cs.toronto.edu/~kriz/{ARCHIVES[name]}"
        assert (archive.remote.md5, archive.remote.size) == (md5, size)


def test_every_published_set_can_be_loaded_by_name():
    assert set(PUBLISHED) < set(DATA_SETS)


@pytest.mark.parametrize("name", ARCHIVES)
def test_the_first_use_downloads_and_the_second_does_not(publish, monkeypatch, tmp_path, name):
    write_cifar(tmp_path / "origin", name)
    content = packed(tmp_path / "origin" / FOLDERS[name])
    archive = publish(name, content)
    with serve(Served({archive: content})) as served:
        point_to(monkeypatch, name, served.url)
        assert load_data(name).test.stored.equal(load_data(name, tmp_path / "origin").test.stored)
        assert len(served.asked) == 1
        load_data(name)
        assert len(served.asked) == 1
    assert [p.name for p in data_home().iterdir()] == [FOLDERS[name]], "the archive is not kept"


def test_a_folder_that_lacks_a_file_is_brought_anew(publish, tmp_path):
    write_cifar(tmp_path / "origin", "cifar10")
    content = packed(tmp_path / "origin" / FOLDERS["cifar10"])
    archive = publish("cifar10", content)
    write_cifar(tmp_path / "here", "cifar10")
    (tmp_path / "here" / FOLDERS["cifar10"] / "data_batch_3").unlink()
    assert len(missing("cifar10", tmp_path / "here")) == 1
    with serve(Served({archive: content})) as served:
        assert len(provide("cifar10", tmp_path / "here", url=served.url + archive)) == 1
        assert provide("cifar10", tmp_path / "here", url=served.url) == []
    assert missing("cifar10", tmp_path / "here") == []


def test_those_who_come_at_the_same_time_wait_for_each_other(publish, tmp_path):
    write_cifar(tmp_path / "origin", "cifar10")
    content = packed(tmp_path / "origin" / FOLDERS["cifar10"])
    archive = publish("cifar10", content)
    with serve(Served({archive: content}, delay_s=0.001)) as served:
        with ThreadPoolExecutor(4) as pool:
            jobs = [
                pool.submit(provide, "cifar10", tmp_path / "here", url=served.url) for _ in range(4)
            ]
            brought = [len(job.result()) for job in jobs]
        assert sorted(brought) == [0, 0, 0, 1]
        assert len(served.asked) == 1
    assert missing("cifar10", tmp_path / "here") == []


def test_an_archive_without_all_files_is_refused(publish, tmp_path):
    write_cifar(tmp_path / "origin", "cifar10")
    (tmp_path / "origin" / FOLDERS["cifar10"] / "test_batch").unlink()
    content = packed(tmp_path / "origin" / FOLDERS["cifar10"])
    archive = publish("cifar10", content)
    match = "does not hold all of cifar-10-batches-py"
    with serve(Served({archive: content})) as served, pytest.raises(UnpackError, match=match):
        provide("cifar10", tmp_path / "here", url=served.url)


def test_a_hostile_archive_is_refused_even_with_the_right_checksum(publish, tmp_path):
    write_cifar(tmp_path / "origin", "cifar10")
    content = packed(tmp_path / "origin" / FOLDERS["cifar10"], extra=["../../evil"])
    archive = publish("cifar10", content)
    match = "leads out of the archive"
    with serve(Served({archive: content})) as served, pytest.raises(UnpackError, match=match):
        provide("cifar10", tmp_path / "a" / "b", url=served.url)
    assert not (tmp_path / "evil").exists()
    assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == [archive]


def test_members_of_event_archives_get_their_paths():
    train, test = PUBLISHED["nmnist"]
    assert train.wanted("Train/3/00021.bin") == "3/00021.bin"
    assert test.wanted("./Test/0/00001.bin") == "0/00001.bin"
    assert train.wanted("Test/0/00001.bin") is None
    train, test = PUBLISHED["dvsgesture"]
    assert train.wanted("ibmGestureTrain/user01_fluorescent_led/0.npy") == (
        "user01_fluorescent_led/0.npy"
    )
    assert test.wanted("ibmGestureTest/user24_led/x.npy") is None
    (dvs,) = PUBLISHED["cifar10dvs"]
    assert dvs.wanted("CIFAR10DVS/airplane.zip") == "airplane.zip"
    for name in ("airplane/airplane/c_0.aedat4", "airplane/c_0.aedat4"):
        assert dvs.wanted(name) == "airplane/c_0.aedat4"
    assert dvs.wanted("house/c_0.aedat4") is None


# ---- the command


def test_the_command_downloads_and_says_where_to(publish, tmp_path, capfd):
    write_cifar(tmp_path / "origin", "cifar10")
    content = packed(tmp_path / "origin" / FOLDERS["cifar10"])
    archive = publish("cifar10", content)
    folder = tmp_path / "here"
    argv = ["download", "cifar10", f"--data-dir={folder}"]
    with serve(Served({archive: content})) as served:
        assert main([*argv, f"--url={served.url}"]) == 0
    out = capfd.readouterr().out
    assert f"{archive}, MB ..." in out
    assert f"cifar10: {folder / FOLDERS['cifar10']}" in out
    assert main(argv) == 0
    assert f"cifar10: complete in {folder}" in capfd.readouterr().out
    assert load_data("cifar10", folder).classes[0] == "class 0"


def test_the_command_refuses_in_one_line(publish, tmp_path, capfd):
    publish("cifar10", b"content")
    with serve(Served({})) as served:
        for argv, message in (
            (["cifar10", f"--url={served.url}"], "the server answers 404 Not Found"),
            (["cifar10", "--url=nowhere"], "is no address of http:// or https://"),
            (["cifar"], "unknown data set to download 'cifar'; did you mean 'cifar10'"),
            (["digits"], "unknown data set to download 'digits'"),
            (["nmnist", "--url=http://x/file"], "give a place that ends in / and holds nmnist-tr"),
        ):
            assert main(["download", *argv, f"--data-dir={tmp_path / 'here'}"]) == 2
            err = capfd.readouterr().err
            assert message in err
            assert err.count("\n") == 1


def test_without_a_network_the_first_use_says_so(publish):
    publish("cifar100", b"content")  # published where nothing answers
    with pytest.raises(DownloadError, match=r"cannot be reached .*; check the network"):
        load_data("cifar100")


def test_missing_data_name_the_command_that_gets_them(tmp_path):
    with pytest.raises(ValueError, match="no such folder; get the data with") as caught:
        load_data("cifar10", tmp_path)
    assert how_to_get("cifar10", tmp_path) in str(caught.value)
    write_cifar(tmp_path, "cifar100")
    (tmp_path / FOLDERS["cifar100"] / "meta").unlink()
    with pytest.raises(ValueError, match="cifar-100-python: lacks meta; get the data with"):
        load_data("cifar100", tmp_path)


def test_the_default_folder_can_be_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv("SPIKINGMOE_DATA", str(tmp_path))
    assert data_home() == tmp_path
    monkeypatch.delenv("SPIKINGMOE_DATA")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_home() == tmp_path / ".cache" / "spikingmoe"
