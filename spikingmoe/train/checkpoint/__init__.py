"""Checkpoints: what a file holds, which files a run keeps, and the run that they describe.

The only package of `spikingmoe` besides the command line that knows `hardware`: it uses its files.
"""

from __future__ import annotations

from hardware.files import write_bytes, write_text
from spikingmoe.train.checkpoint.archive import (
    ABOUT,
    FORMAT_VERSION,
    KIND,
    ArchiveIO,
    read_checkpoint,
)
from spikingmoe.train.checkpoint.folder import (
    KEPT,
    alone_in_run,
    checkpoint_name,
    checkpoints,
    make_run_folder,
    newest_valid,
    remove_old,
)
from spikingmoe.train.checkpoint.run import Run, about, load_run, package_versions

__all__ = [
    "ABOUT",
    "FORMAT_VERSION",
    "KEPT",
    "KIND",
    "ArchiveIO",
    "Run",
    "about",
    "alone_in_run",
    "checkpoint_name",
    "checkpoints",
    "load_run",
    "make_run_folder",
    "newest_valid",
    "package_versions",
    "read_checkpoint",
    "remove_old",
    "write_bytes",
    "write_text",
]
