"""Download of one file over HTTP(S): resumed where it was cut, checked before it gets its name.

Bytes go to NAME.part. A connection that breaks is taken up again from there (`Range`; a server that ignores
it is read from the start), also by the next process. Only when the length and the MD5 are those that were
published, the file is synced and renamed.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

CHUNK = 1 << 18  # bytes per read
MOST_BYTES = 1 << 35  # of a file whose size is not published
TIMEOUT_S = 30.0
ATTEMPTS = 5  # in a row that bring nothing
Progress = Callable[[int, int], None]  # (bytes so far, bytes in all)


class DownloadError(ValueError):
    """A file could not be downloaded: what was asked for, what came, what to do, in one line."""


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A published file.

    Attributes:
        name: what it is called here.
        md5: of its content, as published (32 hexadecimal digits).
        size: bytes; None where it is not published.
    """

    url: str
    name: str
    md5: str
    size: int | None = None


class _Broken(Exception):
    """The connection failed in a way that another attempt may cure."""


def download(
    remote: RemoteFile,
    folder: Path,
    *,
    progress: Progress = lambda done, total: None,
    timeout_s: float = TIMEOUT_S,
    attempts: int = ATTEMPTS,
    pause_s: float = 1.0,
) -> Path:
    """Bring a file into a folder (made if missing) and return its path; nothing to do if it is there.

    Args:
        timeout_s: of every wait for the server.
        attempts: how many in a row may fail without a byte gained.
        pause_s: before the second attempt; doubled for each further one.

    Raises:
        DownloadError: the server does not have it or cannot be reached, the disk is full, or what
            came is not what was published. What came so far stays in NAME.part for the next try,
            unless it is wrong.
    """
    if urlsplit(remote.url).scheme not in ("http", "https"):
        raise DownloadError(f"{remote.url}: is no address of http:// or https://; give one")
    target, part = folder / remote.name, folder / f"{remote.name}.part"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if target.is_file() and md5_of(target) == remote.md5:
            return target
        _fill(remote, part, progress, timeout_s, attempts, pause_s)
        found = md5_of(part)
        if found != remote.md5:
            part.unlink()
            raise DownloadError(
                f"{remote.url}: came with the MD5 {found}, published is {remote.md5}; it was thrown "
                f"away; try again, or another --url"
            )
        os.replace(part, target)
        sync_folder(folder)
    except OSError as error:
        raise DownloadError(_disk_trouble(error, part)) from None
    return target


def md5_of(path: Path) -> str:
    """MD5 of a file, in hexadecimal; against damage, not against forgery."""
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a loss of power."""
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot
            raise
    finally:
        os.close(fd)


def _fill(
    remote: RemoteFile,
    part: Path,
    progress: Progress,
    timeout_s: float,
    attempts: int,
    pause_s: float,
) -> None:
    """Bring the whole file into `part`, over as many connections as it takes."""
    failed, furthest = 0, _size(part)
    while True:
        before = _size(part)
        if remote.size is not None and before == remote.size:
            return  # a whole file whose check did not come to an end
        try:
            return _read_once(remote, part, before, progress, timeout_s)
        except _Broken as error:
            failed = 1 if _size(part) > furthest else failed + 1
            furthest = max(furthest, _size(part))
            if failed >= attempts:
                raise DownloadError(
                    f"{remote.url}: {error}, {attempts} times in a row; check the network, then run "
                    f"the same again: it goes on where it stopped"
                ) from None
            time.sleep(pause_s * 2 ** (failed - 1))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _read_once(
    remote: RemoteFile, part: Path, have: int, progress: Progress, timeout_s: float
) -> None:
    """One connection: append to `part`, or begin anew if the server does not resume."""
    headers = {"User-Agent": "spikingmoe", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        request = urllib.request.Request(remote.url, headers=headers)
        with urllib.request.urlopen(request, timeout=timeout_s) as response:
            start = have if have and _resumes_at(response, have) else 0
            total = _total(remote, response, start)
            _check_space(part, total - start)
            _copy(response, part, start, total, progress)
    except urllib.error.HTTPError as error:
        if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{have}":
            return  # it is whole; its check did not come to an end
        if error.code == 416 and have:  # what is there is no part of what the server has
            part.unlink()
            raise _Broken("the server has no such part") from None
        if error.code in (408, 425, 429) or error.code >= 500:
            raise _Broken(f"the server answers {error.code} {error.reason}") from None
        raise DownloadError(
            f"{remote.url}: the server answers {error.code} {error.reason}; check the address or give "
            f"another with --url"
        ) from None
    except urllib.error.URLError as error:
        raise _Broken(f"cannot be reached ({_reason(error.reason)})") from None
    except http.client.InvalidURL as error:
        raise DownloadError(f"{remote.url}: is no address ({error}); give another") from None
    except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
        raise _Broken(f"the connection broke ({_reason(error)})") from None


def _resumes_at(response: http.client.HTTPResponse, have: int) -> bool:
    if response.status != 206:
        return False
    return (response.headers.get("Content-Range") or "").startswith(f"bytes {have}-")


def _total(remote: RemoteFile, response: http.client.HTTPResponse, start: int) -> int:
    """Bytes of the whole file, from what is published and what the server announces."""
    length = response.headers.get("Content-Length", "")
    announced = start + int(length) if length.isdigit() else None
    total = remote.size if remote.size is not None else announced
    if total is None or not 0 < total <= MOST_BYTES:
        raise DownloadError(
            f"{remote.url}: the server does not say how long the file is, or says {length!r}; give "
            f"another --url"
        )
    if announced not in (None, total):
        raise DownloadError(
            f"{remote.url}: has {announced} bytes, published are {total}; this is another file, give "
            f"another --url"
        )
    return total


def _received(response: http.client.HTTPResponse, left: int) -> memoryview:
    try:
        return memoryview(response.read1(min(CHUNK, left)))
    except OSError as error:  # of the network, whatever its kind: files are not touched here
        raise _Broken(f"the connection broke ({_reason(error)})") from None


def _copy(
    response: http.client.HTTPResponse, part: Path, start: int, total: int, progress: Progress
) -> None:
    with part.open("r+b" if part.exists() else "xb", buffering=0) as file:
        file.truncate(start)
        file.seek(start)
        done = start
        progress(done, total)
        while done < total and (chunk := _received(response, total - done)):
            while chunk:
                written = file.write(chunk)
                chunk, done = chunk[written:], done + written
            progress(done, total)
        os.fsync(file.fileno())
    if done < total:
        raise _Broken(f"the connection ended after {done} of {total} bytes")


def _check_space(part: Path, needed: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if free < needed:
        raise DownloadError(
            f"{part}: needs {needed / 1e6:.0f} MB more, {free / 1e6:.0f} MB are free; free some space "
            f"or use another --data-dir"
        )


def _disk_trouble(error: OSError, part: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        advice = "free some space, then run the same again: it goes on where it stopped"
    else:
        advice = "use another --data-dir"
    return f"{part}: cannot be written ({error.strerror}); {advice}"


def _reason(error: object) -> str:
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())[:200]
