"""Runs that another launcher than ours of this machine trains: what they are sent with, what became of them.

No torch here.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol, runtime_checkable

from hydra.core.utils import JobReturn, JobStatus

from repro.config.errors import ReproError
from repro.records import FINISHED, already_finished, read_info
from repro.records.lock import holder
from repro.sweeps import _compat, dry_run, preflight
from repro.sweeps.jobs import QUIET, Job, quoted
from repro.sweeps.progress import modified_ns

AGAIN = "run the same command again once nothing runs: finished runs are kept, unfinished ones resume"


@runtime_checkable
class Collects(dry_run.Cluster, Protocol):
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


def unable(jobs: Sequence[Job]) -> list[str | None]:
    """For each job, what on this machine keeps it from training: its data, decoded once for all, or the disk."""
    problems = preflight.data_problems([job.config for job in jobs])
    folder = Path(jobs[0].composed.hydra.sweep.dir).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    preflight.note_locks(folder)
    shortage = preflight.lack_of_room(folder, [job.config for job in jobs], workers=1)  # at least, at once
    return [shortage] * len(jobs) if shortage else problems


def has_ended(job: Job, before: int | None) -> bool:
    """Whether a run has ended well since its record was last written, ``before``, by that record's own word."""
    with suppress(ReproError):
        info = read_info(job.folder)
        return info is not None and info["status"] in FINISHED and modified_ns(job.folder) != before
    return False


def found(job: Job, before: int | None, how: str) -> JobReturn:
    """What the record says of a run that was launched; ``how`` its job ended, for a run that is not finished.

    ``before`` is when the record was last written before the launch.
    """
    try:
        again = job.config.force and modified_ns(job.folder) == before
        if not again and already_finished(job.folder, replace(job.config, force=False)):
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
