"""Where the data sets are published, what their archives hold, and what of it is missing in a folder."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from spikingmoe.config import unknown
from spikingmoe.data.digests import write_digests
from spikingmoe.data.download import RemoteFile, download
from spikingmoe.data.progress import Watch, unwatched
from spikingmoe.data.unpack import Limits, UnpackError, unpack

MB = 1_000_000
HOME_VARIABLE = "SPIKINGMOE_DATA"


@dataclass(frozen=True, kw_only=True)
class Archive:
    """One published archive and the folder that it becomes.

    Attributes:
        folder: below the data folder, for example `NMNIST/Train`.
        member: pattern of the members that are wanted; its groups, joined by "/", are their paths in
            `folder`.
        complete: whether a folder holds what the archive does.
        nested: it holds archives.
        files: names of the few large files that the folder then has, whose digests are kept beside them.
    """

    remote: RemoteFile
    folder: str
    member: str
    limits: Limits
    complete: Callable[[Path], bool]
    nested: bool = False
    files: tuple[str, ...] = ()

    def wanted(self, name: str) -> str | None:
        """The path in `folder` of a member, None if it is of no use."""
        match = re.fullmatch(self.member, name.removeprefix("./"))
        return "/".join(filter(None, match.groups())) if match else None


def data_home() -> Path:
    """The folder for data of which no other is given: $SPIKINGMOE_DATA, or ~/.cache/spikingmoe."""
    given = os.environ.get(HOME_VARIABLE)
    return Path(given) if given else Path.home() / ".cache" / "spikingmoe"


def missing(name: str, data_dir: Path) -> list[Archive]:
    """The archives of a data set whose files a folder lacks."""
    return [a for a in PUBLISHED[name] if not a.complete(data_dir / a.folder)]


def provide(
    name: str, data_dir: Path, *, url: str | None = None, watch: Watch = unwatched
) -> list[Archive]:
    """Download and unpack what a folder lacks of a data set; returns what was brought.

    Processes that do this at the same time wait for each other.

    Args:
        url: another address of the archive; or, ending in "/", a place that has all under their names.

    Raises:
        ValueError: unknown name; DownloadError, UnpackError: see there.
    """
    if name not in PUBLISHED:
        raise ValueError(unknown("data set to download", name, PUBLISHED))
    several = len(PUBLISHED[name]) > 1
    if url and several and not url.endswith("/"):
        names = ", ".join(a.remote.name for a in PUBLISHED[name])
        raise ValueError(
            f"url={url}: data '{name}' has several archives; give a place that ends in / and holds {names}"
        )
    if not missing(name, data_dir):
        return []
    with alone_in(data_dir):
        lacking = missing(name, data_dir)
        for archive in lacking:
            remote = archive.remote
            if url:
                remote = replace(remote, url=url + remote.name if url.endswith("/") else url)
            with watch(f"{remote.name}, MB") as update:
                path = download(
                    remote,
                    data_dir,
                    progress=lambda done, total, update=update: update(done // MB, total // MB),
                )
            with watch(f"unpacking {remote.name}"):
                unpack(
                    path,
                    data_dir / archive.folder,
                    archive.wanted,
                    archive.limits,
                    nested=archive.nested,
                )
            if not archive.complete(data_dir / archive.folder):
                raise UnpackError(
                    f"{path}: does not hold all of {archive.folder}; remove both, then download again"
                )
            if archive.files:
                write_digests(data_dir / archive.folder, archive.files)
            path.unlink()
    return lacking


def how_to_get(name: str, data_dir: Path) -> str:
    """The command that brings a data set into a folder."""
    return f"`spikingmoe download {name} --data-dir {data_dir}`"


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process works in a folder (made if missing), then be the one that does."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise ValueError(
            f"{folder}: cannot hold data ({error.strerror}); use another --data-dir"
        ) from None
    try:
        with contextlib.suppress(OSError):  # a file system that knows no locks
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _has(*names: str) -> Callable[[Path], bool]:
    return lambda folder: all((folder / name).is_file() for name in names)


def _is_filled(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _has_all_classes(folder: Path) -> bool:
    return all(_is_filled(folder / name) for name in CIFAR10_CLASSES)


def _cifar(name: str, md5: str, size: int, folder: str, files: tuple[str, ...]) -> Archive:
    return Archive(
        remote=RemoteFile(
            url=f"https://www.cs.toronto.edu/~kriz/{name}", name=name, md5=md5, size=size
        ),
        folder=folder,
        member=f"{folder}/({'|'.join(map(re.escape, files))})",
        limits=Limits(members=20, member_bytes=200 * MB, total_bytes=300 * MB),
        complete=_has(*files),
        files=files,
    )


CIFAR10_FILES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta")
CIFAR100_FILES = ("train", "test", "meta")
CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)

#: Addresses and checksums of CIFAR: Krizhevsky's page; of the event data: Tonic's data set classes.
PUBLISHED: dict[str, tuple[Archive, ...]] = {
    "cifar10": (
        _cifar(
            "cifar-10-python.tar.gz",
            "c58f30108f718f92721af3b95e74349a",
            170_498_071,
            "cifar-10-batches-py",
            CIFAR10_FILES,
        ),
    ),
    "cifar100": (
        _cifar(
            "cifar-100-python.tar.gz",
            "eb9058c3a382ffc7106e4002c42a8d85",
            169_001_437,
            "cifar-100-python",
            CIFAR100_FILES,
        ),
    ),
    "nmnist": tuple(
        Archive(
            remote=RemoteFile(
                url=f"https://data.mendeley.com/public-files/datasets/468j46mzdv/files/{file}/file_downloaded",
                name=f"nmnist-{part.lower()}.zip",
                md5=md5,
            ),
            folder=f"NMNIST/{part}",
            member=rf"(?:.*/)?{part}/(\d)/(\d+\.bin)",
            limits=Limits(members=70_100, member_bytes=MB, total_bytes=4_000 * MB),
            complete=_is_filled,
        )
        for part, file, md5 in (
            ("Train", "39c25547-014b-4137-a934-9d29fa53c7a0", "20959b8e626244a1b502305a9e6e2031"),
            ("Test", "05a4d654-7e03-4c15-bdfa-9bb2bcbea494", "69ca8762b2fe404d9b9bad1103e97832"),
        )
    ),
    "dvsgesture": tuple(
        Archive(
            remote=RemoteFile(
                url=f"https://figshare.com/ndownloader/files/{file}",
                name=f"ibmGesture{part}.tar.gz",
                md5=md5,
            ),
            folder=f"DVSGesture/ibmGesture{part}",
            member=rf"(?:.*/)?ibmGesture{part}/(user\d+_\w+)/(\d+\.npy)",
            limits=Limits(members=2_000, member_bytes=500 * MB, total_bytes=30_000 * MB),
            complete=_is_filled,
        )
        for part, file, md5 in (
            ("Train", "38022171", "3a8f0d4120a166bac7591f77409cb105"),
            ("Test", "38020584", "56070e45dadaa85fff82e0fbfbc06de5"),
        )
    ),
    "cifar10dvs": (
        Archive(
            remote=RemoteFile(
                url="https://figshare.com/ndownloader/files/38023437",
                name="CIFAR10DVS.zip",
                md5="ce3a4a0682dc0943703bd8f749a7701c",
            ),
            folder="CIFAR10DVS",
            member=rf"(?:.*/)?(?:((?:{'|'.join(CIFAR10_CLASSES)})\.zip)"
            rf"|({'|'.join(CIFAR10_CLASSES)})/(?:.*/)?([\w.-]+\.aedat4))",
            limits=Limits(members=11_000, member_bytes=3_000 * MB, total_bytes=30_000 * MB),
            complete=_has_all_classes,
            nested=True,
        ),
    ),
}
