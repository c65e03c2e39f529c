"""Folders that are written, the bundled checkpoints, and the data that are there."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from spikingmoe.doctor.check import Check, one_line

TOPIC = "files"
LOW = 1_000_000_000  # bytes: CIFAR-10 takes 0.4 GB while it is unpacked
CHECKPOINTS = Path(__file__).parents[1] / "checkpoints"


def cache_folder() -> Path:
    """Where kernels and downloaded data are kept unless variables say otherwise."""
    given = os.environ.get("SPIKINGMOE_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "spikingmoe"


def folder_check(
    name: str, folder: Path, *, free: int | None = None, needed: bool = False
) -> Check:
    """Whether a folder, or the nearest one above it that exists, can be written, and its free space."""
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    fix = f"mkdir -p {folder} && chmod u+rwx {folder}, or choose another folder"
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
        free = shutil.disk_usage(there).free if free is None else free
    except OSError as error:
        return Check(topic=TOPIC, name=name, state="missing", needed=needed, fix=fix,
                     found=f"{folder} cannot be written ({error.strerror or one_line(error)})",
                     cost="nothing can be kept there")  # fmt: skip
    low = free < LOW
    return Check(
        topic=TOPIC,
        name=name,
        state="warning" if low else "ok",
        found=f"{folder}, {free / 1e9:,.1f} GB free",
        cost="data sets may not fit" if low else "",
        fix="free some space, or choose another folder" if low else "",
        needed=needed,
    )


def storage_checks() -> Iterator[Check]:
    """The working directory, where results go by default, and the cache."""
    yield folder_check("working directory", Path.cwd(), needed=True)
    cache = folder_check("cache", cache_folder())
    if cache.state == "missing":
        cache = replace(
            cache,
            cost="kernels are not kept, data must lie elsewhere",
            fix="set SPIKINGMOE_CACHE and SPIKINGMOE_DATA to folders that can be written",
        )
    yield cache


def checkpoint_checks(folder: Path = CHECKPOINTS) -> Iterator[Check]:
    """Each bundled checkpoint is read whole, its digest included."""
    from hardware.files import read_archive

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        yield Check(topic=TOPIC, name="bundled checkpoints", state="missing", found="none",
                    cost="no `spikingmoe evaluate cifar-tiny`", fix="install the package again")  # fmt: skip
    for file in files:
        try:
            read_archive(file, kind="spikingmoe-checkpoint", version=1)
        except ValueError as error:
            yield Check(topic=TOPIC, name=file.stem, state="missing", found=one_line(str(error)),
                        cost=f"no `spikingmoe evaluate {file.stem}`",
                        fix="install the package again, or git checkout its file")  # fmt: skip
        else:
            yield Check(topic=TOPIC, name=file.stem, state="ok",
                        found=f"bundled checkpoint, whole ({file.stat().st_size / 1e6:.1f} MB)")  # fmt: skip


def data_checks(facts: Mapping[str, Any]) -> Iterator[Check]:
    """The published data sets.

    Args:
        facts: as `data_facts` tells them; empty or with `error` where there was no answer.
    """
    if not facts or "error" in facts:
        yield Check(topic=TOPIC, name="data", state="warning", fix="mend torch first",
                    found=f"not looked at: {facts.get('error', 'torch did not answer')}",
                    cost="unknown")  # fmt: skip
        return
    lacking = [name for name, there in facts["there"].items() if not there]
    have = ["digits", *(name for name, there in facts["there"].items() if there)]
    yield Check(
        topic=TOPIC,
        name="data",
        state="ok",
        found=f"{', '.join(have)} in {facts['folder']}",
        fix=f"more: spikingmoe download {lacking[0]} (or {', '.join(lacking[1:])})"
        if len(lacking) > 1
        else f"more: spikingmoe download {lacking[0]}"
        if lacking
        else "",
    )
