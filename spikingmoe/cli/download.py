"""`spikingmoe download`."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import Namespace

from spikingmoe.cli.console import progress, say
from spikingmoe.data.published import data_home, provide


def run(args: Namespace) -> int:
    """Bring a published data set into a folder: download, check, unpack; what is there stays."""
    folder = Path(args.data_dir) if args.data_dir else data_home()
    brought = provide(args.name, folder, url=args.url, watch=progress)
    if not brought:
        say(f"{args.name}: complete in {folder}")
    for archive in brought:
        say(f"{args.name}: {folder / archive.folder}")
    return 0
