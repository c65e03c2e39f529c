"""The folder through which a worker gets its work and gives back its results.

    graph.safetensors   the graph to run           job.json      who asked, how to run
    inputs.npy          (S, T or 1, *shape)        status.json   phase, process ids, errors
    track{i}.npy        what was recorded          progress.npy  finished hardware steps, per segment
    log.txt             everything printed         fault.json    why a process of the run gave up

The process that made a folder keeps it locked; a folder that nobody locks is stale and is removed at
the next start.
"""

from __future__ import annotations

import fcntl
import itertools
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

PREFIX = "spikingmoe-job-"
FORMER = ("spikingmoe-lava-",)  # of earlier versions
MAX_LOG_LINE = 300


class JobFolder:
    """Paths and small files of one job."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def graph(self) -> str:
        return str(self.path / "graph.safetensors")

    @property
    def inputs(self) -> str:
        return str(self.path / "inputs.npy")

    @property
    def progress(self) -> str:
        return str(self.path / "progress.npy")

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    def track(self, index: int) -> str:
        return str(self.path / f"track{index}.npy")

    def read(self, name: str) -> dict:
        """A JSON file of the job; empty if it is not there yet."""
        try:
            return json.loads((self.path / name).read_text())
        except FileNotFoundError:
            return {}

    def write(self, name: str, content: dict) -> None:
        """Replace a JSON file of the job, whole or not at all."""
        temporary = self.path / f".{name}.tmp"
        temporary.write_text(json.dumps(content))
        os.replace(temporary, self.path / name)

    def steps_done(self) -> int:
        """Hardware steps that all recorders (or segments) have written."""
        try:
            return int(np.load(self.progress, allow_pickle=False).min())
        except (OSError, ValueError, EOFError):
            return 0

    def last_log_line(self) -> str:
        """The last line that anything of the run printed (for error messages)."""
        try:
            lines = self.log.read_text(errors="replace").strip().splitlines()
        except OSError:
            return ""
        lines = [line for line in lines if "resource_tracker" not in line]
        return lines[-1].strip()[:MAX_LOG_LINE] if lines else ""


@contextmanager
def job_folder() -> Iterator[JobFolder]:
    """A new folder under the temporary directory, removed at the end; stale ones are removed first."""
    root = Path(tempfile.gettempdir())
    remove_stale(root)
    unlocked = Path(tempfile.mkdtemp(prefix="spikingmoe-new-", dir=root))
    lock = os.open(unlocked / "lock", os.O_CREAT | os.O_RDWR, 0o600)
    path = root / (PREFIX + unlocked.name.removeprefix("spikingmoe-new-"))
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        unlocked.rename(
            path
        )  # only a locked folder ever has the name that `remove_stale` looks for
        yield JobFolder(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)
        shutil.rmtree(unlocked, ignore_errors=True)
        os.close(lock)


def remove_stale(root: Path) -> None:
    """Remove this user's job folders whose makers are dead."""
    for path in itertools.chain.from_iterable(root.glob(f"{p}*") for p in (PREFIX, *FORMER)):
        try:
            if path.is_symlink() or path.stat().st_uid != os.getuid():
                continue
            lock = os.open(path / "lock", os.O_RDWR | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
        except BlockingIOError:
            pass  # its maker lives
        finally:
            os.close(lock)
