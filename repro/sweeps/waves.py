"""Sweeps in waves: a run that starts from another's snapshot is launched after it. Does not import torch."""

from collections.abc import Callable, Sequence
from pathlib import Path

from hydra.core.utils import JobReturn

from repro.config import fingerprint
from repro.config.errors import ReproError
from repro.records import starts
from repro.sweeps import _compat
from repro.sweeps.jobs import Job
from repro.training import checkpoints, lifecycle


def link(jobs: list[Job]) -> None:
    """Set the ``start.folder`` of each job whose source is another job of the sweep to that job's folder.

    Raises ReproError if the source does not keep the snapshot.
    """
    if not any(job.config.start.curve for job in jobs):
        return
    by_fingerprint = {fingerprint(job.config, images=False): job for job in jobs}
    for job in jobs:
        start = job.config.start
        if start.fingerprint is None or start.iteration is None:
            continue
        source = by_fingerprint.get(start.fingerprint) or next(
            (c for c in jobs if c.config.seed == job.config.seed and starts.is_source(c.config, job.config)), None
        )
        if source is None:
            continue
        start.folder = str(source.folder)
        kept = source.config.snapshots
        if start.iteration not in kept and not starts.snapshot(source.folder, start.iteration).exists():
            factor = job.config.scale.iterations
            raise ReproError(
                f"{described([job])[0]}, which keeps {[round(i / factor) for i in kept] or 'no snapshot'}; "
                "add that iteration to its snapshots="
            )


def in_waves(jobs: list[Job]) -> list[list[Job]]:
    """The jobs in waves; a job that starts from another one is in a later wave. Raises ReproError for a cycle."""
    waiting, waves = list(jobs), []
    while waiting:
        folders = {str(job.folder) for job in waiting}
        waves.append([job for job in waiting if job.config.start.folder not in folders])
        if not waves[-1]:
            raise ReproError(f"start.folder={waiting[0].config.start.folder}: these runs start from each other")
        waiting = [job for job in waiting if job.config.start.folder in folders]
    return waves


def launch(jobs: list[Job], launch_jobs: Callable[[list[Job]], Sequence[JobReturn]]) -> list[JobReturn]:
    """Launch wave after wave with ``launch_jobs``; returns the results in the order of ``jobs``.

    A job whose source left no snapshot is not launched: its record and its result say why.
    """
    returns: dict[Path, JobReturn] = {}
    for wave in in_waves(jobs):
        problems = refused(wave)
        for job in wave:
            if (problem := problems.get(job.folder)) is not None:
                lifecycle.refuse(job.config, job.folder, job.changes, problem)
                returns[job.folder] = _compat.failed_return(job.overrides, ReproError(problem))
        trainable = [job for job in wave if job.folder not in problems]
        if trainable:
            returns |= dict(zip((job.folder for job in trainable), launch_jobs(trainable), strict=True))
    return [returns[job.folder] for job in jobs]


def refused(jobs: list[Job]) -> dict[Path, str]:
    """By folder, why jobs whose source was launched before cannot start; jobs with a checkpoint need no source."""
    problems = {}
    for job in jobs:
        if checkpoints.find(job.folder):
            continue
        try:
            if problem := starts.problem(job.config):
                problems[job.folder] = problem
        except ReproError as error:
            problems[job.folder] = str(error)
    return problems


def described(jobs: list[Job]) -> list[str]:
    """One line for each curve that starts from another curve's snapshot."""
    factor = {job.config.curve: job.config.scale.iterations for job in jobs}
    starting = {job.config.curve: job.config.start for job in jobs if job.config.start.curve}
    return [
        f"{curve} starts from iteration {round((start.iteration or 0) / factor[curve])} of {start.curve}"
        for curve, start in starting.items()
    ]
