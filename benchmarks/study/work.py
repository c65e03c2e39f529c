"""Worker processes of a study, on this machine or on a cluster, and what they do."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.locks import claim
from benchmarks.study.run import do_run, run_name
from benchmarks.study.settings import load_settings
from benchmarks.study.storage import Claimed, Trials
from spikingmoe.data import load_data
from spikingmoe.data.image_data import ImageData

Say = Callable[[str], None]
END_S = 8.0  # for workers to keep their last step after an interruption
POLL_S = 0.2
BROKEN = 1


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """What a worker process is told; the rest stands in the study's folder."""

    out: Path
    storage: str | None
    data_dir: str | None


def work(options: WorkerOptions) -> int:
    """Do trials until there are none that nobody works on; exit code 1 if one broke off.

    Raises:
        ValueError: the folder holds no study, or its storage cannot be opened.
    """
    settings = load_settings(options.out)
    if settings is None:
        raise ValueError(f"{options.out}: holds no study; start one first")
    torch.set_num_threads(settings.train.threads)
    trials = Trials(settings, options.out, options.storage)
    data = load_data(settings.train.data, options.data_dir)
    broken = False
    while True:
        with trials.next() as claimed:
            if claimed is None:
                return BROKEN if broken else 0
            broken |= not _do(trials, claimed, data, options.out)


def _do(trials: Trials, claimed: Claimed, data: ImageData, out: Path) -> bool:
    """One trial; False if it broke off by a mistake (the others go on)."""
    settings = trials.settings
    done, every = trials.progress()

    def say(text: str) -> None:
        print(f"[{done}/{every}] {text}", flush=True)

    if claimed.again:
        say(f"trial {claimed.number} ({claimed.point.name}) had lost its worker: taken up again")
    records = []
    try:
        for seed in claimed.seeds:
            with ExitStack() as held:
                if len(claimed.seeds) > 1:  # else the trial's lock is the run's
                    held.enter_context(claim(out, run_name(claimed.point, seed), wait=True))
                records.append(do_run(settings, claimed.point, seed, data, out, say))
    except Exception as error:
        traceback.print_exc()
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        trials.give_up(claimed, reason)
        say(f"trial {claimed.number} ({claimed.point.name}): {reason}; going on with the others")
        return False
    trials.finish(claimed, records)
    done, every = trials.progress()
    say(f"{claimed.point.name}: done")
    return True


def run_workers(script: Path, options: WorkerOptions, jobs: int) -> int:
    """`jobs` worker processes at once; the exit code of the first that failed, or 0.

    Raises:
        KeyboardInterrupt: after the workers have ended.
    """
    command = [sys.executable, str(script), "--worker", "--out", str(options.out)]
    if options.data_dir:
        command += ["--data-dir", options.data_dir]
    environment = dict(os.environ)
    if options.storage:  # not on the command line, which everybody may read
        environment["SPIKINGMOE_STUDY_STORAGE"] = options.storage
    # A group of their own: a terminal's Ctrl-C reaches this process alone, which passes it on once.
    children = [subprocess.Popen(command, env=environment, process_group=0) for _ in range(jobs)]
    try:
        while any(child.poll() is None for child in children):
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        end(children)
        raise
    finally:
        end(children)
    return next((code for child in children if (code := child.returncode)), 0)


def end(children: list[subprocess.Popen[bytes]]) -> None:
    """Interrupt what still runs, wait for the steps to be kept, and kill who takes too long."""
    for child in children:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)  # SIGINT is ignored by what a shell put behind
    until = time.monotonic() + END_S
    for child in children:
        try:
            child.wait(max(0.1, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
