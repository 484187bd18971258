"""Runs that are not trained by the local launcher: the overrides they are sent with, and their outcomes.

Does not import torch.
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

AGAIN = "run the same command again once no run is active: finished runs are kept, unfinished ones resume"


@runtime_checkable
class Collects(dry_run.Cluster, Protocol):
    """The methods that a launcher adds to Hydra's if it collects every job, even if others fail."""

    def collect(self, jobs: list[Job], overrides: list[list[str]]) -> Sequence[JobReturn]:
        """Train the jobs with these overrides; their results, in order. A job that fails raises nothing."""


def overrides(job: Job) -> list[str]:
    """The overrides with which any process on any machine that shares the disk trains ``job`` to the same bits.

    Paths are absolute, and unless configured otherwise a run has one thread, as in a local sweep.
    """
    config = job.config
    paths = {"output": config.output, "dataset.root": config.dataset.root}
    paths |= {"dataset.cache": config.dataset.cache} if config.dataset.cache else {}
    added = [quoted(key, Path(path).expanduser().absolute()) for key, path in paths.items()]
    added += [] if config.threads else ["threads=1"]
    return [*job.overrides, QUIET, *added, *job.in_its_folder]


def unable(jobs: Sequence[Job]) -> list[str | None]:
    """For each job, why it cannot be trained: its data, decoded here once for all jobs, or the disk; else None."""
    problems = preflight.data_problems([job.config for job in jobs])
    folder = Path(jobs[0].composed.hydra.sweep.dir).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    preflight.note_locks(folder)
    shortage = preflight.lack_of_room(folder, [job.config for job in jobs], workers=1)  # a lower bound
    return [shortage] * len(jobs) if shortage else problems


def has_ended(job: Job, before: int | None) -> bool:
    """Whether the record says that the run finished, and was written after ``before`` (``modified_ns``)."""
    with suppress(ReproError):
        info = read_info(job.folder)
        return info is not None and info["status"] in FINISHED and modified_ns(job.folder) != before
    return False


def found(job: Job, before: int | None, ending: str) -> JobReturn:
    """The result of a launched run, by its record; ``ending`` says how its job ended if the run is not finished.

    ``before`` is when the record was last written before the launch (``modified_ns``).
    """
    try:
        is_old = job.config.force and modified_ns(job.folder) == before
        if not is_old and already_finished(job.folder, replace(job.config, force=False)):
            return JobReturn(job.overrides, status=JobStatus.COMPLETED)
        info = read_info(job.folder)
    except ReproError as error:
        return _compat.failed_return(job.overrides, ReproError(f"{error} ({ending})"))
    name = holder(job.folder)
    if name is not None:
        reason = f"still trained by {name}"
    elif info is None or modified_ns(job.folder) == before:
        reason = "it has not started"
    elif info["status"] == "failed":
        reason = info.get("reason", "no reason was recorded")
    elif info["status"] == "interrupted":
        reason = "interrupted"
    else:
        reason = "its process died"
    return _compat.failed_return(job.overrides, ReproError(f"{reason} ({ending})"))
