"""Workers of a study as jobs of a Slurm cluster, by submitit."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.study.work import WorkerOptions, work

POLL_S = 1.0
INSTALL = (
    "submitit is missing, which hands workers to Slurm; pip install 'spikingmoe[study]' (or pip "
    "install submitit)"
)


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """How jobs are asked for.

    Attributes:
        executor: submitit's: "slurm", or "local" and "debug" to try it without a cluster.
        partition: of Slurm; None for its default.
        minutes: a job may take; workers that are ended leave a trial that others go on with.
    """

    executor: str
    partition: str | None
    minutes: int


def run_on_cluster(options: WorkerOptions, cluster: ClusterOptions, jobs: int, threads: int) -> int:
    """Submit `jobs` workers and wait for them; the exit code of the first that failed, or 0.

    Raises:
        ValueError: submitit is missing, or there is no Slurm here.
        KeyboardInterrupt: after the jobs were cancelled.
    """
    try:
        import submitit
    except ImportError:
        raise ValueError(INSTALL) from None
    root = str(Path(__file__).parents[2])
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))  # jobs inherit it
    try:
        executor = submitit.AutoExecutor(folder=options.out / "slurm", cluster=cluster.executor)
        executor.update_parameters(timeout_min=cluster.minutes, cpus_per_task=threads)
        if cluster.executor == "slurm" and cluster.partition:
            executor.update_parameters(slurm_partition=cluster.partition)
        started = [executor.submit(work, options) for _ in range(jobs)]
    except (RuntimeError, OSError, submitit.core.utils.FailedJobError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"--slurm: no job could be submitted ({reason})") from None
    print(f"{jobs} jobs: {', '.join(job.job_id for job in started)}", flush=True)
    try:
        while not all(job.done() for job in started):
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        for job in started:
            job.cancel()
        raise
    codes = [1 if job.exception() is not None else int(job.result()) for job in started]
    return next((code for code in codes if code), 0)
