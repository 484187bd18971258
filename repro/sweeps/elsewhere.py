"""Runs that another launcher than ours of this machine trains: what they are sent with, what became of them.

No torch here.
"""

import fcntl
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from hydra.core.utils import JobReturn, JobStatus

from repro.config.errors import ReproError
from repro.records import already_finished, read_info
from repro.records.lock import holder
from repro.sweeps import _compat, cost, preflight
from repro.sweeps.jobs import QUIET, Job
from repro.sweeps.progress import modified_ns

AGAIN = "run the same command again once nothing runs: finished runs are kept, unfinished ones resume"


@runtime_checkable
class Collects(cost.Cluster, Protocol):
    """What a launcher that collects every job, whatever becomes of the others, adds to Hydra's methods."""

    def collect(self, jobs: list[Job], overrides: list[list[str]]) -> Sequence[JobReturn]:
        """Train the jobs by these overrides; the returns in order. A job that fails raises nothing."""


def overrides(job: Job) -> list[str]:
    """What makes any process on any machine that shares the disk train ``job`` with the same bits.

    Paths do not depend on its working folder, and it has one thread, as a run of a local sweep, unless told more.
    """
    config = job.config
    paths = {"output": config.output, "dataset.root": config.dataset.root}
    paths |= {"dataset.cache": config.dataset.cache} if config.dataset.cache else {}
    added = [quoted(key, Path(path).expanduser().absolute()) for key, path in paths.items()]
    added += [] if config.threads else ["threads=1"]
    return [*job.overrides, QUIET, *added, *job.in_its_folder]


def quoted(key: str, value: object) -> str:
    """An override whose value may hold anything that a path may."""
    text = str(value).replace("'", "\\'")
    return f"{key}='{text}'"


def unable(jobs: Sequence[Job]) -> list[str | None]:
    """For each job, what on this machine keeps it from training: its data, decoded once for all, or the disk.

    Prints a note where the disk has no locks.
    """
    problems = preflight.data_problems([job.config for job in jobs])
    folder = Path(jobs[0].composed.hydra.sweep.dir).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if shortage := preflight.lack_of_room(folder, [job.config for job in jobs], len(jobs)):
        return [shortage] * len(jobs)
    if reason := no_locks(folder):
        print(f"note: {folder} has no locks ({reason}): see to it that no two jobs train one run", file=sys.stderr)
    return problems


def no_locks(folder: Path) -> str | None:
    """Why files in ``folder`` cannot be locked; None where they can."""
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            return error.strerror or str(error)
    return None


def found(job: Job, before: int | None, how: str) -> JobReturn:
    """What the record says of a run that was launched; ``how`` its job ended, for a run that is not finished.

    ``before`` is when the record was last written before the launch.
    """
    try:
        if already_finished(job.folder, job.config):
            return JobReturn(job.overrides, status=JobStatus.COMPLETED)
        info = read_info(job.folder)
    except ReproError as error:
        return _compat.failed_return(job.overrides, ReproError(f"{error} ({how})"))
    name = holder(job.folder)
    if name is not None:
        reason = f"still trained by {name}"
    elif info is None or modified_ns(job.folder) == before:
        reason = "it has not begun"
    elif info["status"] == "failed":
        reason = info.get("reason", "no reason was recorded")
    elif info["status"] == "interrupted":
        reason = "interrupted"
    else:
        reason = "its process died"
    return _compat.failed_return(job.overrides, ReproError(f"{reason} ({how})"))
